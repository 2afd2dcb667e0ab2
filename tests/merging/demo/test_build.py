"""Building the family: whole or not at all, the same for the same seed, loadable."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from merging.demo import NAMES
from merging.demo.build import Curriculum, build, shortened

QUICK = shortened(Curriculum(hidden=32, layers=1, heads=2, intermediate=32), steps=3)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("family") / "new" / "demo"
    build(out, seed=7, curriculum=QUICK)
    return out


def test_every_model_loads_and_carries_a_card(family: Path) -> None:
    assert sorted(path.name for path in family.iterdir()) == sorted(NAMES)
    for name in NAMES:
        model = AutoModelForCausalLM.from_pretrained(family / name)
        tokenizer = AutoTokenizer.from_pretrained(family / name)
        assert model.config.vocab_size == len(tokenizer)
        assert tokenizer.chat_template and tokenizer.padding_side == "left"
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        card = (family / name / "README.md").read_text(encoding="utf-8")
        assert f"demo:{name}" in card and "seed 7" in card and "3 steps" in card


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(
    family: Path, tmp_path: Path
) -> None:
    torch.rand(5)
    before = torch.random.get_rng_state()
    build(tmp_path / "again", seed=7, curriculum=QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    build(tmp_path / "other", seed=8, curriculum=QUICK)
    for name in NAMES:
        first = load_file(family / name / "model.safetensors")
        again = load_file(tmp_path / "again" / name / "model.safetensors")
        other = load_file(tmp_path / "other" / name / "model.safetensors")
        assert all(torch.equal(first[key], again[key]) for key in first)
        assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_experts_differ_from_the_base_and_from_each_other(family: Path) -> None:
    heads = [load_file(family / name / "model.safetensors")["lm_head.weight"] for name in NAMES]
    for index, head in enumerate(heads):
        assert not any(torch.equal(head, other) for other in heads[:index])


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        build(tmp_path, curriculum=QUICK)
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(name: str, _share: float) -> None:
        if name == "reverse":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", curriculum=QUICK, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_progress_rises_to_one_for_every_model(tmp_path: Path) -> None:
    shares_of: dict[str, list[float]] = {}
    build(
        tmp_path / "out",
        curriculum=QUICK,
        progress=lambda name, share: shares_of.setdefault(name, []).append(share),
    )
    assert list(shares_of) == list(NAMES)
    for shares in shares_of.values():
        assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
