"""Model Breadcrumbs: how many of the largest go, and how many of the next stay."""

from __future__ import annotations

import pytest
import torch

from merging.instructions import elections, sums
from merging.methods.breadcrumbs import counts
from tests.shelf import Case, cases


def pruned(delta: torch.Tensor, density: float, gamma: float, rescale: bool) -> torch.Tensor:
    dropped, count = counts(delta.numel(), density, gamma)
    inside = delta.flatten().abs().argsort(descending=True, stable=True)[dropped : dropped + count]
    result = torch.zeros(delta.numel())
    result[inside] = delta.flatten()[inside]
    if rescale:
        result *= delta.abs().sum() / result.abs().sum()
    return result


def per_model(value: float | list[float], count: int) -> list[float]:
    return value if isinstance(value, list) else [value] * count


def changes_of(case: Case) -> list[torch.Tensor]:
    values, count = case.parameters, len(case.changes)
    densities, gammas = (per_model(values[name], count) for name in ("density", "gamma"))
    return [
        pruned(delta, density, gamma, values.get("rescale", False))
        for delta, density, gamma in zip(case.changes, densities, gammas, strict=True)
    ]


@pytest.mark.parametrize("case", cases("breadcrumbs"))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    values = case.parameters
    total = sums.weighted_sum(changes_of(case), values["weight"], values.get("normalize", False))
    assert case.close(case.from_base(total * values.get("lambda", 1.0)))


@pytest.mark.parametrize("case", cases("breadcrumbs_ties"))
def test_numbers_with_elected_signs_are_those_of_mergekit(case: Case) -> None:
    values = case.parameters
    merged = elections.elect_and_merge(
        changes_of(case), values["weight"], normalize=values.get("normalize", False)
    )
    assert case.close(case.from_base(merged * values.get("lambda", 1.0)))


@pytest.mark.parametrize(
    ("numel", "density", "gamma", "expected"),
    [
        (10, 0.4, 0.1, (1, 4)),
        (10, 0.4, 0.0, (0, 4)),
        (10, 0.45, 0.19, (1, 4)),  # whole entries, rounded down
        (10, 0.5, 0.7, (5, 5)),  # so many stay that fewer outliers can go
        (10, 0.9, 0.5, (1, 9)),
        (10, 1.0, 0.5, (0, 10)),  # nothing is pruned, outliers neither
        (10, 0.0, 0.2, (2, 0)),
        (10, 0.05, 0.1, (1, 0)),
        (1, 0.5, 0.5, (0, 0)),
        (0, 0.5, 0.5, (0, 0)),
        (50, 0.29, 0.01, (0, 14)),
        (100, 0.29, 0.01, (1, 28)),  # 0.29 * 100 is 28.999... in floating point
    ],
)
def test_counts_by_hand(
    numel: int, density: float, gamma: float, expected: tuple[int, int]
) -> None:
    assert counts(numel, density, gamma) == expected
