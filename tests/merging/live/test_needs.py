"""What a live model needs of memory, against what is free."""

from __future__ import annotations

from dataclasses import replace

import pytest

from merging.checkpoints import open_checkpoint
from merging.errors import NotEnoughSpace
from merging.live.needs import Needs, needs
from merging.recipe import from_mapping
from merging.trial.chat import ChatModel
from tests.families import document
from tests.merging.live.families import make_family, recipe_of

GB = 1_000_000_000


def need(free: float, device: str = "cpu") -> Needs:
    return Needs("base", 4 * GB, 2 * GB, GB, int(free * GB), device)


def test_what_is_too_large_is_refused_with_its_numbers() -> None:
    need(7).check()
    with pytest.raises(NotEnoughSpace) as refused:
        need(6.9).check()
    assert str(refused.value) == (
        "the live model of base needs 7.0 GB of memory (4.0 GB for the model, 2.0 GB while it "
        "merges, 1.0 GB to spare) and 6.9 GB are free; close other programs, or write the merge "
        "and open it in Chat"
    )


def test_where_other_models_hold_enough_they_are_named() -> None:
    with pytest.raises(NotEnoughSpace, match=r"other loaded models hold 2\.0 GB: let go of them"):
        need(5).check(2 * GB)
    assert need(5).fits_without(2 * GB)
    assert not need(5).fits_without(GB)
    assert not need(8).fits_without(GB)  # it fits as it is


def test_on_a_gpu_the_model_alone_must_fit() -> None:
    need(5, "cuda:0").check()
    with pytest.raises(NotEnoughSpace, match=r"needs 5\.0 GB of memory \(4\.0 GB for the model, 1"):
        need(4.9, "cuda:0").check()


def test_the_model_is_counted_in_the_type_of_the_result(tmp_path) -> None:
    family = make_family(tmp_path)
    size = open_checkpoint(family / "base").size_bytes
    assert needs(recipe_of(family), "cpu").model == size
    wide = from_mapping(document("ties", [{"weight": 1.0}], {}) | {"dtype": "float32"}, family)
    found = needs(wide, "cpu")
    assert found.model == 2 * size  # of bfloat16
    assert found.free > 0
    assert replace(found, free=found.total).fits
    assert ChatModel.load(family / "base", "cpu").size_bytes >= size
