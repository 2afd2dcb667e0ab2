"""TSV-Merge against numbers worked out apart and the steps through full decompositions."""

from __future__ import annotations

import pytest
import torch

from merging.methods import tsv
from tests.matrices import A, B, changes, distance


def by_full_decomposition(tasks: list[torch.Tensor]) -> torch.Tensor:
    """The paper's steps in float64, for matrices of full rank."""
    parts = [torch.linalg.svd(task.double(), full_matrices=False) for task in tasks]
    q = min(tasks[0].shape) // len(tasks)
    left = torch.cat([u[:, :q] for u, _, _ in parts], dim=1)
    right = torch.cat([v[:q] for _, _, v in parts])
    (a, _, b), (c, _, d) = (torch.linalg.svd(x, full_matrices=False) for x in (left, right))
    return a @ b @ torch.diag(torch.cat([s[:q] for _, s, _ in parts])) @ c @ d


def test_one_direction_of_each_of_two_experts() -> None:
    expected = torch.tensor([[0.830997, 2.114533], [1.809848, -0.095423]])
    assert float((tsv.merge([A, B]) - expected).abs().max()) < 2e-6


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
@pytest.mark.parametrize("experts", [1, 2, 3, 5])
def test_merges_follow_the_steps(shape, experts) -> None:
    tasks = changes(experts, *shape)
    assert distance(tsv.merge(tasks), by_full_decomposition(tasks)) < 1e-5


def test_one_expert_is_that_expert_and_orthogonal_ones_add_up() -> None:
    (change,) = changes(1, 10, 14)
    assert distance(tsv.merge([change]), change) < 1e-6
    one, other = torch.zeros(2, 8, 12).unbind()
    one[:3, :4], other[3:, 4:] = changes(1, 3, 4)[0], changes(1, 5, 8, rank=4, seed=1)[0]
    assert distance(tsv.merge([one, other]), one + other) < 1e-6


def test_equal_experts_give_their_strongest_directions_once() -> None:
    (change,) = changes(1, 9, 12)
    u, s, v = torch.linalg.svd(change.double(), full_matrices=False)
    assert distance(tsv.merge([change] * 3), (u[:, :3] * s[:3]) @ v[:3]) < 1e-5
    (change,) = changes(1, 9, 12, rank=2)
    assert distance(tsv.merge([change] * 3), change) < 1e-5


def test_order_scale_and_sides() -> None:
    tasks = changes(3, 20, 30)
    merged = tsv.merge(tasks)
    assert distance(tsv.merge(tasks[::-1]), merged) < 1e-5
    assert distance(tsv.merge([1e-6 * one for one in tasks]), 1e-6 * merged) < 1e-5
    assert distance(tsv.merge([one.T for one in tasks]).T, merged) < 1e-5


def test_an_expert_equal_to_the_base_does_not_count() -> None:
    tasks = changes(2, 8, 10)
    assert torch.equal(tsv.merge([*tasks, torch.zeros(8, 10)]), tsv.merge(tasks))


def test_more_experts_than_directions() -> None:
    tasks = changes(5, 3, 9)
    merged = tsv.merge(tasks)
    assert merged.shape == (3, 9) and bool(merged.isfinite().all()) and bool(merged.any())


def test_limits() -> None:
    assert torch.equal(tsv.merge([torch.zeros(3, 4)] * 2), torch.zeros(3, 4))
    assert tsv.merge([torch.zeros(0, 4)] * 2).shape == (0, 4)
    assert tsv.merge([torch.tensor([[-2.0]])]).item() == pytest.approx(-2.0)
    broken = changes(2, 3, 4)
    broken[1][2, 1] = torch.nan
    assert tsv.merge(broken).isnan().all()
