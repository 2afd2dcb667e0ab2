"""Model Stock: how far to go to the mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.instructions import grams
from merging.methods.model_stock import coefficients, ratio, rows
from tests.shelf import Case, blend, cases

TAUS = [
    [0.9, -0.2, 0.5, 0.0, -0.6, 0.1, 0.3, -0.4, 0.05, 0.7],
    [-0.3, -0.8, 0.4, 0.2, 0.6, -0.1, -0.9, 0.4, 0.0, 0.6],
    [0.5, 0.1, -0.7, 0.0, 0.05, -0.3, 0.2, -0.1, -0.2, 0.8],
]


def merged(case: Case, opposed: str) -> torch.Tensor:
    if case.parameters.get("filter_wise"):
        return case.from_base(
            rows([one.reshape(-1, one.shape[-1]) for one in case.changes], opposed)
        )
    blended = coefficients(grams.gram(case.changes), opposed)
    return case.from_base(blend(case.changes, blended))


@pytest.mark.parametrize("case", cases("model_stock"))
def test_with_its_rule_numbers_are_those_of_mergekit(case: Case) -> None:
    assert case.close(merged(case, "mergekit"))


@pytest.mark.parametrize(
    "case", cases("model_stock", lambda case: case.inputs not in ("opposed", "block"))
)
def test_numbers_are_those_of_mergekit_where_t_stays_bounded(case: Case) -> None:
    assert case.close(merged(case, "bounded"))


def test_a_worked_example() -> None:
    gram = grams.gram([torch.tensor(tau) for tau in TAUS])  # mean cosine 0.048517
    assert float(ratio(gram)) == pytest.approx(0.132678, abs=1e-6)
    assert coefficients(gram) == pytest.approx([0.132678 / 3] * 3, abs=1e-6)


def pair(cosine: float, length: float = 1.0) -> np.ndarray:
    return np.array([[1.0, cosine], [cosine, 1.0]]) * length**2


@pytest.mark.parametrize(
    ("cosine", "expected"), [(1.0, 1.0), (0.5, 2 / 3), (0.0, 0.0), (-0.2, -0.5), (-0.5, -2.0)]
)
def test_t_of_two_changes(cosine: float, expected: float) -> None:
    assert float(ratio(pair(cosine + 1e-12))) == pytest.approx(expected, abs=1e-9)


def test_where_t_runs_away_the_base_stays() -> None:
    assert float(ratio(pair(-0.51))) == 0.0
    assert float(ratio(pair(-0.51), "mergekit")) == pytest.approx(-1.02 / 0.49)
    three = np.full((3, 3), -0.34)
    np.fill_diagonal(three, 1.0)
    assert float(ratio(three)) == 0.0
    np.fill_diagonal(three, 1.03)  # a cosine of -0.3301, t = -0.9903 / 0.3398
    assert float(ratio(three)) == pytest.approx(-2.914, abs=1e-3)
    assert float(ratio(pair(-0.999), "mergekit")) == pytest.approx(-1998.0)
    assert float(ratio(pair(-1.0), "mergekit")) == 0.0  # its divisor is 0


def test_the_base_may_stay_wherever_changes_oppose_each_other() -> None:
    assert float(ratio(pair(-0.2), "base")) == 0.0
    assert float(ratio(pair(0.2), "base")) == float(ratio(pair(0.2))) > 0


def test_rows_go_as_far_as_each_of_them_agrees() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    second = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = [[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert torch.allclose(rows([first, second]), torch.tensor(expected))


def test_changes_shorter_than_a_thousandth_count_as_less_alike() -> None:
    # product of the lengths 2.5e-7 of 1e-6: a cosine of 1 counts as 0.25, t = 0.5 / 1.25
    assert float(ratio(pair(1.0, length=5e-4))) == pytest.approx(0.4)


def test_models_without_changes_give_the_base() -> None:
    assert coefficients(np.zeros((2, 2))) == (0.0, 0.0)
