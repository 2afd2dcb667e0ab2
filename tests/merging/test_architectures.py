"""Real architectures: merged folders load with transformers and hold the values expected."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from merging import recipe as recipes
from merging.run.merge import merge
from tests.families import document

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
SIZES = {
    "llama": (
        "LlamaConfig",
        "AutoModelForCausalLM",
        SMALL,
    ),
    "qwen2": (
        "Qwen2Config",
        "AutoModelForCausalLM",
        {**SMALL, "tie_word_embeddings": True},
    ),
    "gpt2": (
        "GPT2Config",
        "AutoModelForCausalLM",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "vocab_size": 64,
            "n_positions": 32,
        },
    ),
    "mixtral": (
        "MixtralConfig",
        "AutoModelForCausalLM",
        {**SMALL, "num_local_experts": 4},
    ),
    "t5": (
        "T5Config",
        "AutoModelForSeq2SeqLM",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 64,
            "decoder_start_token_id": 0,
        },
    ),
}
METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "dppa", "pcb")


def make(kind: str, parent: Path) -> type:
    """Saves base, expert0 and expert1 of one architecture; the class that loads them."""
    config_name, loader_name, sizes = SIZES[kind]
    config = getattr(transformers, config_name)(**sizes)
    loader = getattr(transformers, loader_name)
    torch.manual_seed(0)
    model = loader.from_config(config)
    model.save_pretrained(parent / "base")
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    for index in range(2):
        for name, value in model.named_parameters():
            change = 1e-2 * torch.randn(value.shape) * torch.randn(value.shape).abs()
            value.data = start[name] + change
        model.save_pretrained(parent / f"expert{index}")
    return loader


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Makes each architecture's family once: family(kind) -> its folder and loading class."""
    made: dict[str, tuple[Path, type]] = {}

    def get(kind: str) -> tuple[Path, type]:
        if kind not in made:
            parent = tmp_path_factory.mktemp(kind)
            made[kind] = parent, make(kind, parent)
        return made[kind]

    return get


def parameters(loader: type, folder: Path) -> dict[str, torch.Tensor]:
    model, info = loader.from_pretrained(folder, output_loading_info=True, dtype="auto")
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return dict(model.named_parameters())


def outputs(loader: type, folder: Path) -> torch.Tensor:
    model = loader.from_pretrained(folder).eval()
    ids = torch.tensor([[1, 5, 9, 2]])
    extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **extra).logits


@pytest.mark.parametrize("kind", sorted(SIZES))
def test_merged_parameters_are_those_of_the_formula(kind: str, family, tmp_path) -> None:
    parent, loader = family(kind)
    recipe = document("task_arithmetic", [{"weight": 0.4}, {"weight": 0.8}])
    merge(recipes.from_mapping(recipe, parent), tmp_path / "out", device="cpu")
    base, first, second, after = (
        parameters(loader, folder)
        for folder in (
            *(parent / name for name in ("base", "expert0", "expert1")),
            tmp_path / "out",
        )
    )
    assert set(after) == set(base)
    for name, value in after.items():
        start = base[name].double()
        expected = start + 0.4 * (first[name] - start) + 0.8 * (second[name] - start)
        assert (value.double() - expected).abs().max() <= 2e-7, name


@pytest.mark.parametrize("kind", sorted(SIZES))
@pytest.mark.parametrize("method", METHODS)
def test_merged_models_load_and_answer(kind: str, method: str, family, tmp_path) -> None:
    parent, loader = family(kind)
    merge(recipes.from_mapping(document(method, 2), parent), tmp_path / "out", device="cpu")
    logits = outputs(loader, tmp_path / "out")
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits, outputs(loader, parent / "base"))


@pytest.mark.parametrize("kind", sorted(SIZES))
def test_shards_and_another_type_load(kind: str, family, tmp_path) -> None:
    parent, loader = family(kind)
    recipe = recipes.from_mapping(document("ties", 2, dtype="bfloat16"), parent)
    merge(recipe, tmp_path / "out", device="cpu", shard_bytes=20_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    after = parameters(loader, tmp_path / "out")
    assert {value.dtype for value in after.values()} == {torch.bfloat16}


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "t5"])
def test_tied_embeddings_stay_tied(kind: str, family, tmp_path) -> None:
    parent, loader = family(kind)
    recipe = recipes.from_mapping(document("dare_linear", 2), parent)
    merge(recipe, tmp_path / "out", device="cpu")
    model = loader.from_pretrained(tmp_path / "out")
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight.data_ptr() == embedding.weight.data_ptr()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "t5"])
def test_every_matrix_of_a_block_is_pruned_by_dynamic_pruning(kind: str, family, tmp_path) -> None:
    parent, _ = family(kind)
    recipe = recipes.from_mapping(document("dppa", 2), parent)
    result = merge(recipe, tmp_path / "out", device="cpu")
    linears = [entry.name for entry in result.account if entry.place.is_linear]
    others = [entry.name for entry in result.account if not entry.place.is_linear]
    assert {entry.place.layer for entry in result.account if entry.place.is_linear} == {0, 1}
    assert not any("norm" in n or "embed" in n or "lm_head" in n or "wte" in n for n in linears)
    assert not any("attn.q_proj.weight" in n or "wi" in n or "c_fc.weight" in n for n in others)
