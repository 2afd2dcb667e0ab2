"""NearSwap: changes cut off at t."""

from __future__ import annotations

import pytest
import torch

from merging.instructions import Clip, apply
from tests.shelf import Case, cases


def change(delta: torch.Tensor, t: float) -> torch.Tensor:
    return apply(Clip(t), delta, 0)


@pytest.mark.parametrize("case", cases("nearswap"))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    assert case.close(case.from_base(change(case.changes[0], case.parameters["t"])))


def test_changes_are_cut_off_at_t() -> None:
    delta = torch.tensor([0.0, 0.05, -0.1, 0.2, -3.0])
    assert change(delta, 0.1).tolist() == pytest.approx([0.0, 0.05, -0.1, 0.1, -0.1])


def test_t_of_0_gives_the_base_and_a_large_one_the_other_model() -> None:
    delta = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert not change(delta, 0.0).any()
    assert torch.equal(change(delta, 100.0), delta)


def test_changes_below_a_millionth_count_as_a_millionth() -> None:
    assert change(torch.tensor([5e-7]), 2.5e-7).item() == pytest.approx(1.25e-7)


def test_nan_is_seen() -> None:
    assert change(torch.tensor([float("nan")]), 0.1).isnan().all()
