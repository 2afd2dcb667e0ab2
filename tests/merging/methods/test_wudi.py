"""WUDI-Merging: its gradient, its steps against torch's Adam, its minimum."""

from __future__ import annotations

import pytest
import torch

from merging.methods import wudi
from tests.matrices import A, B, changes, distance


def loss(merged: torch.Tensor, tasks: list[torch.Tensor]) -> torch.Tensor:
    """What the paper minimises, as it is written."""
    return sum(((merged - task) @ task.T).square().sum() / task.square().sum() for task in tasks)  # type: ignore[return-value]


def by_autograd(tasks: list[torch.Tensor], steps: int, rate: float) -> torch.Tensor:
    merged = torch.nn.Parameter(sum(tasks))
    adam = torch.optim.Adam([merged], lr=rate)
    for _ in range(steps):
        adam.zero_grad()
        loss(merged, tasks).backward()
        adam.step()
    return merged.detach()


def test_single_numbers_by_hand() -> None:
    # G = 1 + 1, N = 2 + 4, from 6: the gradient is 2 (2 * 6 - 6) = 12, and the first step `rate`
    pair = [torch.tensor([[2.0]]), torch.tensor([[4.0]])]
    assert wudi.objective(torch.tensor([[6.0]]), pair) == pytest.approx(4.0**2 + 2.0**2)
    assert wudi.descend(pair, steps=0).item() == 6.0
    assert wudi.descend(pair, steps=1, rate=0.5).item() == pytest.approx(5.5)
    # held to 6 by the mean eigenvalue, 2: 6 + (6 - 6 * 2) / (2 + 2)
    assert wudi.solve(pair).item() == pytest.approx(4.5)
    assert wudi.solve(pair, ridge=0.5).item() == pytest.approx(4.0)
    assert wudi.solve(pair, ridge=1e-9).item() == pytest.approx(3.0)


def test_the_minimum_of_two_matrices() -> None:
    expected = torch.tensor([[1.0, 16 / 9], [2.0, -1 / 9]])
    merged = wudi.solve([A, B], ridge=1e-9)
    assert float((merged - expected).abs().max()) < 1e-6
    lowest = wudi.objective(merged, [A, B])
    for row in range(2):
        for column in range(2):
            moved = merged.clone()
            moved[row, column] += 0.01
            assert wudi.objective(moved, [A, B]) > lowest


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_steps_are_those_of_adam(shape) -> None:
    tasks = changes(3, *shape)
    merged = wudi.descend(tasks, steps=60, rate=1e-4)
    expected = by_autograd([task.double() for task in tasks], 60, 1e-4)
    assert distance(merged, expected) < 1e-4
    moved = float((merged - sum(tasks)).norm() / sum(tasks).norm())
    assert moved > 0.05  # far more than the two are apart


def test_steps_lead_towards_the_minimum() -> None:
    tasks = changes(3, 12, 20)
    values = [wudi.objective(wudi.descend(tasks, n, 1e-4), tasks) for n in (0, 20, 100)]
    assert values[0] > values[1] > values[2] > wudi.objective(wudi.solve(tasks, 1e-9), tasks)
    assert values[0] == pytest.approx(float(loss(sum(tasks).double(), [t.double() for t in tasks])))


def test_one_expert_is_that_expert() -> None:
    (change,) = changes(1, 10, 14)
    assert distance(wudi.descend([change], steps=20), change) < 1e-5
    assert distance(wudi.solve([change]), change) < 1e-5


def test_equal_experts_give_that_expert_and_separate_ones_their_sum() -> None:
    (change,) = changes(1, 10, 8)
    assert distance(wudi.solve([change] * 3, ridge=1e-9), change) < 1e-5
    one, other = torch.zeros(2, 6, 9).unbind()
    one[:, :4], other[:, 4:] = changes(1, 6, 4)[0], changes(1, 6, 5, seed=1)[0]
    assert distance(wudi.solve([one, other]), one + other) < 1e-5
    assert distance(wudi.descend([one, other], steps=20), one + other) < 1e-5


def held(merged: torch.Tensor, tasks: list[torch.Tensor], ridge: float) -> float:
    """What the closed form minimises."""
    way = (merged - sum(tasks)).double().square().sum()
    return wudi.objective(merged, tasks) + ridge * len(tasks) / merged.shape[1] * float(way)


def test_the_closed_form_is_the_minimum_that_is_held_to_the_sum() -> None:
    tasks = changes(2, 5, 7)
    merged = wudi.solve(tasks, ridge=0.5)
    lowest = held(merged, tasks, 0.5)
    noise = torch.Generator().manual_seed(3)
    for _ in range(20):
        moved = merged + 0.01 * torch.randn(5, 7, generator=noise)
        assert held(moved, tasks, 0.5) > lowest


def test_a_ridge_bounds_what_rounding_would_blow_up() -> None:
    # three experts' 12 rows make a square of 36 columns: nothing disturbs anybody any more, at a
    # price that the ridge does not pay
    tasks = changes(3, 12, 36)
    total = float(sum(tasks).norm())  # type: ignore[union-attr]
    assert float(wudi.solve(tasks, ridge=1e-9).norm()) > 2 * total
    ways = [distance(wudi.solve(tasks, ridge), sum(tasks)) for ridge in (0.01, 0.1, 1, 10, 100)]
    assert ways == sorted(ways, reverse=True)
    assert ways[-1] < 0.05
    assert float(wudi.solve(tasks).norm()) < 1.1 * total


def test_order_and_scale_of_the_experts() -> None:
    tasks = changes(3, 8, 20)
    for merge in (wudi.solve, lambda some: wudi.descend(some, 20, 1e-5)):
        assert distance(merge(tasks[::-1]), merge(tasks)) < 1e-4
    scaled = wudi.solve([1e-6 * one for one in tasks])
    assert distance(scaled, 1e-6 * wudi.solve(tasks)) < 1e-5


@pytest.mark.parametrize("merge", [wudi.solve, wudi.descend])
def test_limits(merge) -> None:
    tasks = changes(2, 4, 5)
    assert torch.equal(merge([*tasks, torch.zeros(4, 5)]), merge(tasks))
    assert torch.equal(merge([torch.zeros(3, 4)] * 2), torch.zeros(3, 4))
    assert merge([torch.zeros(0, 4)] * 2).shape == (0, 4)
    assert merge([torch.zeros(4, 0)] * 2).shape == (4, 0)
    tasks[1][2, 1] = torch.nan
    assert merge(tasks).isnan().any()
