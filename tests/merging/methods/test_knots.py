"""KnOTS worked out by hand, and what turning to shared directions promises."""

from __future__ import annotations

import pytest
import torch

from merging.methods import knots
from tests.matrices import changes, distance

TURN = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
PARTS = [torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0], [3.0, 0.0]])]


def test_two_changes_in_two_directions_by_hand() -> None:
    # the rows of [R_1 | R_2] are orthogonal, of squared norms 20 and 10: TURN are the directions
    tasks = [TURN @ part for part in PARTS]
    left, parts = knots.align(tasks)
    assert distance(left.abs(), TURN.abs()) < 1e-6
    for part, expected in zip(parts, PARTS, strict=True):
        assert distance(part.abs(), expected) < 1e-6
    merged = knots.merge(tasks, [1.0, 1.0])  # TURN [[4, 2], [3, 1]]
    assert distance(merged, torch.tensor([[0.0, 0.4], [5.0, 2.2]])) < 1e-6
    merged = knots.merge(tasks, [1.0, 1.0], density=0.25)  # TURN [[4, 0], [3, 0]]
    assert distance(merged, torch.tensor([[0.0, 0.0], [5.0, 0.0]])) < 1e-6


def test_other_tensors_are_merged_by_their_entries() -> None:
    one, other = torch.tensor([4.0, -1.0, 2.0, 0.0]), torch.tensor([2.0, 3.0, -2.0, 0.5])
    assert knots.merge([one, other], [1.0, 1.0]).tolist() == [3.0, 3.0, 0.0, 0.5]
    assert knots.merge([one, other], [1.0, 1.0], density=0.5).tolist() == [3.0, 3.0, 2.0, 0.0]
    # which is what their diagonal matrices come to
    merged = knots.merge([one.diag(), other.diag()], [1.0, 1.0]).diagonal()
    assert merged.tolist() == pytest.approx([3.0, 3.0, 0.0, 0.5], abs=1e-6)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (70, 12)])
def test_directions_give_the_changes_back(shape) -> None:
    tasks = changes(3, *shape)
    left, parts = knots.align(tasks)
    assert distance(left.T @ left, torch.eye(left.shape[1])) < 1e-5
    for part, task in zip(parts, tasks, strict=True):
        assert distance(left @ part, task) < 1e-5
    _, s, v = torch.linalg.svd(torch.cat(tasks, dim=1).double(), full_matrices=False)
    for part, block in zip(parts, v.split(shape[1], dim=1), strict=True):
        assert distance(part.abs(), (s[:, None] * block).abs()) < 1e-4


def test_adapters_take_few_directions_and_stay_in_them() -> None:
    tasks = changes(2, 40, 30, rank=3)
    left, parts = knots.align(tasks)
    assert left.shape == (40, 6) and parts[0].shape == (6, 30)
    assert torch.linalg.matrix_rank(knots.merge(tasks, [1.0, 1.0])) <= 6


def test_one_expert_and_equal_experts_give_that_expert() -> None:
    (change,) = changes(1, 10, 14)
    for count in (1, 3):
        assert distance(knots.merge([change] * count, [1.0] * count), change) < 1e-5


def test_order_and_scale_of_the_experts_and_signs_of_directions() -> None:
    tasks = changes(3, 20, 30)
    merged = knots.merge(tasks, [1.0] * 3, density=0.5)
    assert distance(knots.merge(tasks[::-1], [1.0] * 3, density=0.5), merged) < 1e-4
    scaled = knots.merge([1e-6 * one for one in tasks], [1.0] * 3, density=0.5)
    assert distance(scaled, 1e-6 * merged) < 1e-4
    assert distance(knots.merge([-one for one in tasks], [1.0] * 3, density=0.5), -merged) < 1e-4
    parts = knots.align(tasks)[1]
    flipped = knots.agreeing([-part for part in parts], [1.0] * 3)
    assert torch.equal(flipped, -knots.agreeing(parts, [1.0] * 3))


def test_an_expert_equal_to_the_base_changes_nothing() -> None:
    tasks = changes(2, 8, 10)
    with_base = knots.merge([*tasks, torch.zeros(8, 10)], [1.0] * 3)
    assert distance(with_base, knots.merge(tasks, [1.0] * 2)) < 1e-6


def test_limits() -> None:
    assert torch.equal(knots.merge([torch.zeros(3, 4)] * 2, [1.0, 1.0]), torch.zeros(3, 4))
    assert knots.merge([torch.zeros(0, 4)] * 2, [1.0, 1.0], density=0.5).shape == (0, 4)
    assert knots.merge([torch.zeros(0)] * 2, [1.0, 1.0], density=0.5).shape == (0,)
    assert knots.merge([torch.tensor([[-2.0]])], [1.0]).item() == pytest.approx(-2.0)
    broken = changes(2, 3, 4)
    broken[1][2, 1] = torch.nan
    assert knots.merge(broken, [1.0, 1.0], density=0.5).isnan().any()
    assert knots.merge([one[2] for one in broken], [1.0, 1.0])[1].isnan()
