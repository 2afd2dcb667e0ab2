"""The same tensors under other names: prefixes, parts in the middle, what training adds."""

from __future__ import annotations

import pytest
import torch

from merging.checkpoints import open_checkpoint, open_family
from merging.checkpoints.aliases import renamed
from merging.errors import FamilyMismatch
from tests.families import Tensors, document, merged, tuned, write_family, write_model

LAYER = "layers.{}.self_attn.q_proj.weight"
TOWER: Tensors = {f"model.visual.blocks.{i}.attn.qkv.weight": torch.ones(9, 4) for i in range(8)}


def text(prefix: str, head: str = "lm_head.weight") -> Tensors:
    """Two layers of text whose names begin with `prefix`."""
    tensors = {prefix + LAYER.format(i): torch.full((4, 4), float(i + 1)) for i in range(2)}
    tensors[prefix + "embed_tokens.weight"] = torch.full((6, 4), 3.0)
    tensors[prefix + "norm.weight"] = torch.full((4,), 4.0)
    return {**tensors, head: torch.full((6, 4), 5.0)}


STYLES = {
    "plain": ("model.", "lm_head.weight"),
    "inside": ("model.language_model.", "lm_head.weight"),
    "llava": ("language_model.model.", "language_model.lm_head.weight"),
    "peft": ("base_model.model.model.", "base_model.model.lm_head.weight"),
    "parallel": ("module.model.", "module.lm_head.weight"),
    "compiled": ("_orig_mod.model.", "_orig_mod.lm_head.weight"),
    "bare": ("", "lm_head.weight"),
}


@pytest.mark.parametrize("theirs", sorted(STYLES))
@pytest.mark.parametrize("ours", ["plain", "inside", "llava", "bare"])
def test_text_is_found_under_any_of_its_names(ours: str, theirs: str, tmp_path) -> None:
    base = text(*STYLES[ours])
    expert = {name: tensor + 1 for name, tensor in text(*STYLES[theirs]).items()}
    parent = write_family(tmp_path, base, [expert])
    result = merged(document("task_arithmetic", 1), parent, tmp_path / "out")
    assert set(result) == set(base)
    assert all(torch.equal(result[name], base[name] + 1) for name in base)


@pytest.mark.parametrize("wrapper", ["base_model.model.", "module.", "_orig_mod."])
def test_a_base_that_training_wrapped_is_written_under_the_names_that_load(
    wrapper: str, tmp_path
) -> None:
    plain = text("model.")
    base = {wrapper + name: tensor for name, tensor in plain.items()}
    expert = {name: tensor + 1 for name, tensor in plain.items()}
    parent = write_family(tmp_path, base, [expert])
    result = merged(document("task_arithmetic", 1), parent, tmp_path / "out")
    assert set(result) == set(plain)
    assert all(torch.equal(result[name], plain[name] + 1) for name in plain)


def test_a_text_expert_of_a_base_with_a_larger_tower_fits(tmp_path) -> None:
    base, expert = text("model.language_model.") | TOWER, text("model.")
    root, tune = write_model(tmp_path / "base", base), write_model(tmp_path / "a", expert)
    family = open_family(root, {"a": tune})
    assert [e.name for e in family.merged] == sorted(text("model.language_model."))
    assert {e.name: e.reason for e in family.account if e.status == "copied"} == dict.fromkeys(
        sorted(TOWER), "missing in a"
    )
    assert ("model.norm.weight", "model.language_model.norm.weight") in renamed(family.experts[0])


def test_an_expert_with_a_tower_fits_a_base_of_text(tmp_path) -> None:
    base, expert = text("model."), text("model.language_model.") | TOWER
    root, tune = write_model(tmp_path / "base", base), write_model(tmp_path / "a", expert)
    family = open_family(root, {"a": tune})
    assert [e.name for e in family.merged] == sorted(base)
    assert {e.name for e in family.account if e.status == "left_out"} == set(TOWER)


def test_a_tower_is_never_taken_for_text(tmp_path) -> None:
    same = "layers.{}.self_attn.q_proj.weight"
    base = text("model.language_model.")
    base |= {f"vision_tower.encoder.{same.format(i)}": torch.zeros(4, 4) for i in range(3)}
    expert = text("model.")
    root, tune = write_model(tmp_path / "base", base), write_model(tmp_path / "a", expert)
    tower = [e for e in open_family(root, {"a": tune}).account if "vision" in e.name]
    assert {e.status for e in tower} == {"copied"}


def test_names_that_mean_two_tensors_are_left_alone(tmp_path) -> None:
    base = {
        "model.norm.weight": torch.zeros(2),
        "language_model.norm.weight": torch.zeros(2),
        "head.weight": torch.zeros(8),
    }
    expert = {"norm.weight": torch.ones(2), "head.weight": torch.ones(8)}
    root, tune = write_model(tmp_path / "base", base), write_model(tmp_path / "a", expert)
    assert [e.name for e in open_family(root, {"a": tune}).merged] == ["head.weight"]


def test_an_encoder_is_never_taken_for_a_decoder(tmp_path) -> None:
    base = {f"encoder.{LAYER.format(i)}": torch.zeros(4, 4) for i in range(4)}
    expert = {f"decoder.{LAYER.format(i)}": torch.zeros(4, 4) for i in range(4)}
    root, tune = write_model(tmp_path / "base", base), write_model(tmp_path / "a", expert)
    with pytest.raises(FamilyMismatch, match="0 of 64 parameters"):
        open_family(root, {"a": tune})


def test_what_is_to_stay_is_copied_and_says_so(tmp_path) -> None:
    base = text("model.")
    expert = tuned(base, 1) | {LAYER.format(0): torch.zeros(3, 3)}
    parent = write_family(tmp_path, base, [expert])
    result = merged(
        document("task_arithmetic", 1, keep_base=["lm_head", "norm"]), parent, tmp_path / "out"
    )
    assert torch.equal(result["lm_head.weight"], base["lm_head.weight"])
    assert torch.equal(result["model.norm.weight"], base["model.norm.weight"])
    assert not torch.equal(result["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    root = open_checkpoint(parent / "base")
    family = open_family(root, {"a": parent / "expert0"}, ("lm_head", "norm"))
    reasons = [entry.reason for entry in family.account if entry.status == "copied"]
    assert reasons == ["kept as the base has it, as keep_base asks"] * 2
