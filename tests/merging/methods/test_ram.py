"""Reinforced Agent Merging, plain and with factors per tensor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from merging.checkpoints import open_family
from merging.engines.eager import Stream
from merging.engines.fused import FusedStream
from merging.instructions import Keep
from merging.instructions.masks import share
from merging.methods.ram import factors
from tests.families import write_family
from tests.shelf import Case, cases

NAN = float("nan")


def merge(
    changes: Sequence[torch.Tensor], epsilon: float, scales: Sequence[float] | None = None
) -> torch.Tensor:
    return share(changes, epsilon, scales or [1.0] * len(changes))


def counts(changes: Sequence[torch.Tensor], epsilon: float) -> np.ndarray:
    """Shared and unique entries of every model."""
    active = torch.stack([change.flatten().abs() > epsilon for change in changes])
    several = active.sum(dim=0) > 1
    rows = [[int((own & several).sum()), int((own & ~several).sum())] for own in active]
    return np.array(rows).T


@pytest.mark.parametrize("case", cases("ram"))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    assert case.close(case.from_base(merge(case.changes, case.parameters.get("epsilon", 1e-5))))


@pytest.mark.parametrize("case", cases("ramplus_tl"))
def test_numbers_with_factors_are_those_of_mergekit(case: Case) -> None:
    epsilon = case.parameters.get("epsilon", 1e-5)
    r, alpha = case.parameters.get("r", 0.1), case.parameters.get("alpha", 0.2)
    scales = factors(counts(case.changes, epsilon), r, alpha, epsilon)
    assert case.close(case.from_base(merge(case.changes, epsilon, scales)))


def test_a_model_that_changed_nothing_has_no_factor_where_every_change_counts() -> None:
    # shared / unique is 0 / 0, 2 / 0 and 1 / 4
    measured = np.array([[0, 2, 1], [0, 0, 4]])
    assert factors(measured, 0.1, 0.2, 0.0) == pytest.approx((1.0, 1.02, 1.02))
    assert factors(measured, 0.1, 0.5, 0.0) == pytest.approx((1.0, 1.05, 1.025))


FIRST = torch.tensor([1.0, 2.0, 0.0, 3.0, 0.01, 5.0])
SECOND = torch.tensor([0.0, 4.0, 0.0, -1.0, 2.0, 0.0])


def test_changes_of_one_model_stay_and_those_of_several_are_averaged() -> None:
    expected = [1.0, 3.0, 0.0, 1.0, 2.0, 5.0]
    assert merge([FIRST, SECOND], 0.1).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("engine", [Stream, FusedStream])
def test_shared_and_unique_entries_are_counted(engine, tmp_path: Path) -> None:
    name, base = "model.layers.0.mlp.up_proj.weight", torch.zeros(2, 3)
    experts = [{name: change.reshape(2, 3)} for change in (FIRST, SECOND)]
    parent = write_family(tmp_path, {name: base}, experts)
    family = open_family(parent / "base", {f"e{i}": parent / f"expert{i}" for i in range(2)})
    table = engine(family, chunk=2).open(family.merged[0]).shared_counts([Keep()] * 2, 0.1)
    assert table.tolist() == [[2, 2], [2, 1]]
    assert table.T.tolist() == counts([FIRST, SECOND], 0.1).tolist()


def test_factors_by_hand() -> None:
    # shared / unique is 1 and 2, cut off at 1.5
    own = factors(counts([FIRST, SECOND], 0.1), r=0.1, alpha=1.5, epsilon=0.1)
    assert own == pytest.approx((1.1, 1.15))
    expected = [1.1, 3.0, 0.0, 1.0, 2.3, 5.5]
    assert merge([FIRST, SECOND], 0.1, own).tolist() == pytest.approx(expected)


def test_a_model_that_shares_all_its_changes_gets_the_largest_factor() -> None:
    both = torch.ones(4)
    assert factors(counts([both, both], 1e-5), 0.1, 0.2, 1e-5) == pytest.approx((1.02, 1.02))
    assert factors(counts([both * 0, both * 0], 1e-5), 0.1, 0.2, 1e-5) == (1.0, 1.0)


def test_a_change_of_epsilon_is_none() -> None:
    edge = torch.tensor([0.5, 0.5 + 1e-6])
    assert merge([edge], 0.5).tolist() == [0.0, edge[1].item()]


def test_nan_is_seen() -> None:
    merged = merge([torch.tensor([NAN, 1.0]), torch.tensor([1.0, NAN])], 1e-5)
    assert merged.isnan().all()
