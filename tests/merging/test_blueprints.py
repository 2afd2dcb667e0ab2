"""Stacks of layers, end to end: where every tensor of a result comes from, and what it weighs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from merging import recipe as recipes
from merging.errors import FamilyMismatch, NonFinite, RecipeError
from merging.run.merge import merge
from merging.run.preflight import check, open_recipe
from tests.families import Tensors, llama, load_model, merged, tuned, write_family, write_model

LAYER = "model.layers.{}."
SMALL = {"hidden": 8, "kv": 8, "inner": 12, "vocab": 16}
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """base, expert0 and expert1, of four layers each; deep has six."""
    base = llama(0, layers=4, **SMALL)
    config = {"num_hidden_layers": 4, "layer_types": ["a", "b", "c", "d"]}
    parent = tmp_path_factory.mktemp("stacks")
    write_family(parent, base, [tuned(base, 1), tuned(base, 2)], config)
    write_model(parent / "deep", llama(3, layers=6, **SMALL), {"num_hidden_layers": 6})
    return parent


def source(model: str, start: int, stop: int, **values: object) -> dict:
    one = {"model": model, "layer_range": [start, stop]}
    return {**one, "parameters": values} if values else one


def sliced(method: str, *slices: list[dict], **keys: object) -> dict:
    return {"merge_method": method, "slices": [{"sources": one} for one in slices], **keys}


def stacked(parent: Path, *layers: tuple[str, int]) -> Tensors:
    """The tensors of a stack, the embedding of its first model, norm and head of its last."""
    first, last = (load_model(parent / name) for name in (layers[0][0], layers[-1][0]))
    tensors = {EMBEDDING: first[EMBEDDING], NORM: last[NORM], HEAD: last[HEAD]}
    for place, (name, layer) in enumerate(layers):
        for key, value in load_model(parent / name).items():
            if key.startswith(LAYER.format(layer)):
                tensors[key.replace(LAYER.format(layer), LAYER.format(place))] = value
    return tensors


def same(one: Tensors, other: Tensors) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_layers_of_several_models_are_stacked_overlapping_and_repeated(models, tmp_path) -> None:
    document = sliced(
        "linear", [source("expert0", 0, 3)], [source("expert1", 1, 2)], [source("base", 1, 4)]
    )
    result = merged(document, models, tmp_path / "out")
    layers = (
        [("expert0", i) for i in range(3)] + [("expert1", 1)] + [("base", i) for i in (1, 2, 3)]
    )
    assert same(result, stacked(models, *layers))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 7
    assert config["layer_types"] == ["a", "b", "c", "b", "b", "c", "d"]


def test_layers_may_be_left_out(models, tmp_path) -> None:
    whole = merged(sliced("linear", [source("base", 0, 2)]), models, tmp_path / "short")
    assert same(whole, stacked(models, ("base", 0), ("base", 1)))
    dropped = sliced("linear", [source("base", 0, 1)], [source("base", 3, 4)])
    assert same(
        merged(dropped, models, tmp_path / "out"), stacked(models, ("base", 0), ("base", 3))
    )


def test_sources_of_one_slice_may_name_other_layers(models, tmp_path) -> None:
    document = sliced(
        "linear", [source("expert0", 0, 2, weight=0.5), source("deep", 4, 6, weight=0.5)]
    )
    result = merged(document, models, tmp_path / "out")
    one, other = load_model(models / "expert0"), load_model(models / "deep")
    for layer in range(2):
        name = LAYER.format(layer) + "mlp.up_proj.weight"
        expected = (one[name] + other[LAYER.format(layer + 4) + "mlp.up_proj.weight"]) / 2
        assert torch.allclose(result[name], expected, atol=1e-7)
    assert torch.allclose(result[HEAD], (one[HEAD] + other[HEAD]) / 2, atol=1e-7)


def test_one_model_may_be_averaged_with_its_own_layers(models, tmp_path) -> None:
    document = sliced("linear", [source("base", i, i + 1, weight=0.25) for i in range(4)])
    result = merged(document, models, tmp_path / "out")
    base = load_model(models / "base")
    rest = "mlp.up_proj.weight"
    expected = sum(base[LAYER.format(i) + rest] for i in range(4)) / 4
    assert torch.allclose(result[LAYER.format(0) + rest], expected, atol=1e-7)
    assert torch.allclose(result[EMBEDDING], base[EMBEDDING], atol=1e-7)
    assert LAYER.format(1) + rest not in result


def weights_of(result: Tensors, base: Tensors, expert: Tensors, names: list[str]) -> list[float]:
    weights = []
    for name in names:
        delta = (expert[name] - base[name]).double()
        weights.append(float(((result[name] - base[name]) * delta).sum() / (delta * delta).sum()))
    return weights


STACK = """
merge_method: task_arithmetic
base_model: base
slices:
  - sources:
      - {model: expert0, layer_range: [0, 3], parameters: {weight: [0.0, 1.0]}}
  - sources:
      - {model: expert0, layer_range: [2, 3], parameters: {weight: [3.0, 2.0]}}
  - sources:
      - {model: expert0, layer_range: [1, 4]}
    parameters: {lambda: 0.25}
parameters: {lambda: [1.0, 0.5]}
"""


def test_values_and_gradients_run_over_each_slice(models, tmp_path) -> None:
    result = merged(yaml.safe_load(STACK), models, tmp_path / "out")
    layers = [0, 1, 2, 2, 1, 2, 3]
    base = stacked(models, *(("base", i) for i in layers))
    expert = stacked(models, *(("expert0", i) for i in layers))
    names = [LAYER.format(i) + "mlp.up_proj.weight" for i in range(7)]
    # by hand: weight 0, 1/2, 1 times lambda 1, 3/4, 1/2; a slice of one layer takes the last knots
    expected = [0, 0.375, 0.5, 1.0, 0.25, 0.25, 0.25]
    assert weights_of(result, base, expert, names) == pytest.approx(expected, abs=1e-3)
    outside = weights_of(result, base, expert, [EMBEDDING, NORM, HEAD])
    assert outside == pytest.approx([0, 0.25, 0.25], abs=1e-3)


def test_a_slice_may_have_another_base_and_lack_a_model(models, tmp_path) -> None:
    document = sliced(
        "task_arithmetic",
        [source("expert0", 0, 2), source("expert1", 0, 2)],
        [source("expert1", 1, 4)],
        base_model="base",
    )
    document["slices"][1]["base_model"] = "expert0"
    result = merged(document, models, tmp_path / "out")
    names = ("base", "expert0", "expert1")
    base, one, two = (load_model(models / name) for name in names)
    rest = "self_attn.q_proj.weight"
    first, last = LAYER.format(1) + rest, LAYER.format(3) + rest
    expected = one[first] + two[first] - base[first]
    assert torch.allclose(result[LAYER.format(1) + rest], expected, atol=1e-7)
    assert torch.allclose(result[LAYER.format(4) + rest], two[last], atol=1e-7)
    assert torch.allclose(result[HEAD], two[HEAD], atol=1e-7)


@pytest.mark.parametrize("method", ["ties", "pcb", "dare_ties", "dppa"])
def test_every_method_merges_stacks_and_writes_what_it_read(method, models, tmp_path) -> None:
    document = sliced(
        method,
        [source("expert0", 0, 2), source("expert1", 0, 2)],
        [source("expert0", 1, 3), source("expert1", 1, 3)],
        base_model="base",
    )
    result = merged(document, models, tmp_path / "out")
    again = recipes.load(tmp_path / "out" / "amalgam.yaml")
    merge(again, tmp_path / "again", device="cpu")
    assert same(load_model(tmp_path / "again"), result)
    record = yaml.safe_load((tmp_path / "out" / "amalgam.yaml").read_text())["record"]
    assert sorted(Path(name).name for name in record["inputs"]) == ["base", "expert0", "expert1"]


def refused(document: dict, parent: Path) -> str:
    with pytest.raises((RecipeError, FamilyMismatch)) as error:
        open_recipe(recipes.from_mapping(document, parent))
    return str(error.value)


def test_layers_that_are_not_there_are_one_line(models) -> None:
    text = refused(sliced("linear", [source("base", 0, 2)], [source("base", 3, 5)]), models)
    assert all(word in text for word in ("[3, 5]", "base", "4 layers")), text
    text = refused(sliced("linear", [source("base", 0, 5)]), models)
    assert all(word in text for word in ("[0, 5]", "base", "4 layers")), text


def test_models_of_other_sizes_do_not_stack(models, tmp_path) -> None:
    write_model(tmp_path / "wide", llama(0, layers=4, hidden=16), {"num_hidden_layers": 4})
    wide = str(tmp_path / "wide")
    report = check(
        recipes.from_mapping(sliced("linear", [source("base", 0, 2)], [source(wide, 2, 4)]), models)
    )
    assert report.ok  # shapes alone do not tell: each layer is merged with itself
    text = refused(sliced("linear", [source("base", 0, 2), source(wide, 2, 4)]), models)
    assert "shape" in text, text


def test_a_value_that_is_not_finite_is_told_of_its_model_and_layer(models, tmp_path) -> None:
    broken = load_model(models / "expert0")
    broken[LAYER.format(2) + "mlp.up_proj.weight"][3, 1] = torch.nan
    write_model(tmp_path / "broken", broken, {"num_hidden_layers": 4})
    document = sliced(
        "task_arithmetic",
        [source("expert1", 0, 1)],
        [source(str(tmp_path / "broken"), 2, 4)],
        base_model="base",
    )
    with pytest.raises(NonFinite, match=r"broken: tensor model\.layers\.2\.mlp\.up_proj\.weight"):
        merged(document, models, tmp_path / "out")


HYBRID = {
    "layer_types": ["full_attention", "sliding_attention"] * 2,
    "sliding_window": 4,
    "use_sliding_window": True,
    "max_window_layers": 2,
}
SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "gpt2": GPT2Config(vocab_size=32, n_embd=16, n_layer=4, n_head=2, n_positions=64),
    "qwen3": Qwen3Config(**SIZES, head_dim=8, **HYBRID),
}


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_a_stack_loads_and_answers(kind: str, tmp_path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]).eval()
    model.save_pretrained(tmp_path / "base")
    order = [0, 1, 2, 1, 2, 3]
    document = sliced("linear", [source("base", 0, 3)], [source("base", 1, 4)])
    merged(document, tmp_path, tmp_path / "out")
    result, notes = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(notes["missing_keys"]) and not any(notes["unexpected_keys"])
    assert result.config.num_hidden_layers == 6
    tokens = torch.arange(12)[None] % 32
    layers = model.transformer.h if kind == "gpt2" else model.model.layers
    reordered = torch.nn.ModuleList(layers[i] for i in order)
    if kind == "qwen3":
        types = CONFIGS[kind].layer_types
        assert result.config.layer_types == [types[i] for i in order]
        model.config.layer_types = [types[i] for i in order]
    if kind == "gpt2":
        model.transformer.h = reordered
    else:
        model.model.layers = reordered
        model.model.config.num_hidden_layers = len(order)
    with torch.no_grad():
        expected, logits = (one(tokens, use_cache=False).logits for one in (model, result))
    assert torch.allclose(expected, logits, atol=1e-5)
