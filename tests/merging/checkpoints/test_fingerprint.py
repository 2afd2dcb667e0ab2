"""Fingerprints: of what a model holds, not of how it is stored."""

from __future__ import annotations

import pytest
import torch

from merging.checkpoints import fingerprint, open_checkpoint
from tests.families import llama, write_model

# the package exports the function under the module's name
SETTINGS = fingerprint.__globals__


def of(folder, **options) -> str:
    return fingerprint(open_checkpoint(folder), **options)


def test_shards_do_not_matter(tmp_path) -> None:
    tensors = llama(0, layers=1)
    one = of(write_model(tmp_path / "one", tensors))
    assert one == of(write_model(tmp_path / "many", tensors, shards=4))
    assert one.startswith("sha256:")


@pytest.mark.parametrize("change", ["value", "sign of zero", "name", "type", "shape", "more"])
def test_any_change_of_a_tensor_changes_it(change: str, tmp_path) -> None:
    tensors = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2)}
    changed = {name: tensor.clone() for name, tensor in tensors.items()}
    if change == "value":
        changed["a"][1, 2] += 1e-6
    elif change == "sign of zero":
        changed["a"][0, 0] = -0.0
    elif change == "name":
        changed["c"] = changed.pop("b")
    elif change == "type":
        changed["b"] = changed["b"].half()
    elif change == "shape":
        changed["a"] = changed["a"].reshape(4, 3)
    else:
        changed["c"] = torch.empty(0)
    one, other = write_model(tmp_path / "one", tensors), write_model(tmp_path / "other", changed)
    assert of(one) != of(other)


def test_large_models_are_sampled_unless_asked_for_in_full(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(SETTINGS, "FULL_BYTES", 1000)
    monkeypatch.setitem(SETTINGS, "_SAMPLE", 64)
    tensors = {"a": torch.arange(1000.0)}
    folder = write_model(tmp_path / "m", tensors)
    sampled, full = of(folder), of(folder, full=True)
    assert sampled.startswith("sampled:")
    assert full.startswith("sha256:")
    for index in (0, 500, 999):
        changed = {"a": tensors["a"].clone()}
        changed["a"][index] += 1
        assert of(write_model(tmp_path / f"m{index}", changed)) != sampled
