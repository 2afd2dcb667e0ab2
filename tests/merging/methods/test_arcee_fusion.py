"""Arcee Fusion: the changes that matter most."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from merging.errors import NonFinite
from merging.methods.arcee_fusion import (
    divergence,
    importance,
    least_importance,
    quartile_ranks,
    threshold,
)
from tests.shelf import Case, cases


def change_of(
    base: torch.Tensor, model: torch.Tensor, size: int, seed: int | None = None, sample: int = 1000
) -> torch.Tensor:
    """The change of a matrix, its threshold from chunks of so many rows."""

    def importances() -> Iterator[list[torch.Tensor]]:
        for pair in zip(base.split(size), model.split(size), strict=True):
            yield [importance(*pair).flatten()]

    least = least_importance(importances, base.numel(), seed, sample)
    return (model - base) * (importance(base, model) >= least)


def merged(base: torch.Tensor, model: torch.Tensor, size: int = 2) -> torch.Tensor:
    """The change, from chunks of so many rows."""
    pair = [one.reshape(-1, one.shape[-1]) for one in (base, model)]
    return change_of(*pair, size).view_as(base)


@pytest.mark.parametrize("case", cases("arcee_fusion"))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    assert case.base is not None
    assert case.close(case.from_base(merged(case.base, case.models[0])))


def test_the_divergence_by_hand() -> None:
    # softmax of (0, ln 3) is (1/4, 3/4), of (0, 0) is (1/2, 1/2)
    value = divergence(torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]]))
    assert value.item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), abs=1e-6)


def test_quartiles_are_entries_at_whole_ranks() -> None:
    assert quartile_ranks(1) == [0, 0, 0]
    assert quartile_ranks(4) == [0, 1, 2]
    assert quartile_ranks(5) == [1, 2, 3]
    # float32 cannot tell such ranks from their neighbours
    assert quartile_ranks(300_000_002) == [75_000_000, 150_000_000, 225_000_000]


def test_the_threshold_by_hand() -> None:
    assert threshold([1.0, 2.0, 5.0]) == 8.0


def test_entries_at_the_threshold_and_above_are_taken_over() -> None:
    # one row, so importance is |change| times one number: quartiles of 1..9 are 3, 5 and 7,
    # and the threshold is 5 + 1.5 * 4 = 11 times it
    change = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, 6.0, 7.0, 8.0, 30.0]) * 0.01
    assert merged(torch.zeros(9), change).tolist() == [0.0] * 8 + [pytest.approx(0.3)]


def test_where_hardly_anything_changes_all_changes_pass() -> None:
    change = torch.zeros(4, 8)
    change[1, 2], change[3, 5] = 0.5, -1e-4
    assert torch.equal(merged(torch.ones(4, 8), 1 + change), (1 + change) - 1)


def test_equal_models_give_the_base() -> None:
    base = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert not merged(base, base).any()


def test_chunks_change_nothing() -> None:
    base, change = torch.randn(2, 64, 100, generator=torch.Generator().manual_seed(2)).unbind()
    whole = merged(base, base + 0.1 * change, size=64)
    assert torch.equal(merged(base, base + 0.1 * change, size=20), whole)
    assert 0.02 < (whole != 0).double().mean().item() < 0.2


def test_a_sample_is_drawn_by_its_seed_and_close_to_exact() -> None:
    base, change = torch.randn(2, 100, 80, generator=torch.Generator().manual_seed(3)).unbind()
    model = base + 0.1 * change

    def sampled(seed: int) -> torch.Tensor:
        return change_of(base, model, 50, seed)

    first, exact = sampled(1), merged(base, model, size=50)
    assert torch.equal(first, sampled(1)) and not torch.equal(first, sampled(2))
    taken = [(one != 0).double().mean().item() for one in (first, exact)]
    assert taken[0] == pytest.approx(taken[1], abs=0.03)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_an_error(value: float) -> None:
    model = torch.ones(3, 4)
    model[1, 1] = value
    with pytest.raises(NonFinite):
        merged(torch.zeros(3, 4), model)
