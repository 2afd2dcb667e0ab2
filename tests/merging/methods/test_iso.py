"""Isotropic merging against numbers worked out apart, and what a flat spectrum promises."""

from __future__ import annotations

import pytest
import torch

from merging.methods import iso
from tests.matrices import A, B, changes, distance

DIAGONAL = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5]))
CROSSED = torch.tensor([[0.0, 1, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1], [0, 0, 2, 0]])


def by_full_decomposition(tasks: list[torch.Tensor], fraction: float | None) -> torch.Tensor:
    """The paper's steps through float64 singular value decompositions; matrices of full rank."""
    wide = [task.double() for task in tasks]
    u, s, v = torch.linalg.svd(sum(wide), full_matrices=False)
    if fraction is None:
        return s.mean() * u @ v
    r = len(s)
    each = round((r - int(r * fraction)) / len(tasks))
    k = r - each * len(tasks)
    parts = [torch.linalg.svd(w - u[:, :k] @ u[:, :k].T @ w, full_matrices=False) for w in wide]
    left = torch.cat([*(p[0][:, :each] for p in parts), u[:, :k]], dim=1)
    right = torch.cat([*(p[2][:each] for p in parts), v[:k]])
    mean = torch.cat([*(p[1][:each] for p in parts), s[:k]]).mean()
    (a, _, b), (c, _, d) = (torch.linalg.svd(x, full_matrices=False) for x in (left, right))
    return mean * a @ b @ c @ d


def test_two_directions_by_hand() -> None:
    # M = A + B = [[1, 3], [1, 0]] has determinant -3 and squared norm 11: s_1 + s_2 = sqrt 17;
    # U V^T = (M - adj(M)^T) / sqrt 17 with adj(M)^T = [[0, -1], [-3, 1]], times sqrt 17 / 2
    assert distance(iso.common([A, B]), torch.tensor([[0.5, 2.0], [2.0, -0.5]])) < 1e-6


def test_a_direction_that_two_experts_share_is_not_made_up_twice() -> None:
    # The sum's blocks [[4, 1], [3, 2]] and [[1, 1], [2, 0.5]] give one common direction each, 5.398
    # and 2.422; the first block alone both specific ones, 3.025 and 2.359, to the same left side.
    # A full decomposition would put a fourth left direction there, of arbitrary sign.
    merged = iso.common_and_specific([DIAGONAL, CROSSED], 0.5)
    first = torch.tensor([[1.487201, 1.258420], [1.579673, 2.179751]])
    assert float((merged[:2, :2] - first).abs().max()) < 2e-6
    assert not merged[:2, 2:].any() and not merged[2:, :2].any()
    mean = (3.025140 + 2.359170 + 5.398346 + 2.422078) / 4
    assert torch.linalg.svdvals(merged[2:, 2:]).tolist() == pytest.approx([mean, 0.0], abs=2e-6)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (16, 16)])
@pytest.mark.parametrize("fraction", [None, 0.0, 0.5, 0.8, 1.0])
def test_merges_follow_the_steps(shape, fraction) -> None:
    tasks = changes(3, *shape)
    expected = by_full_decomposition(tasks, fraction)
    if fraction is None:
        assert distance(iso.common(tasks), expected) < 1e-6
    else:
        assert distance(iso.common_and_specific(tasks, fraction), expected) < 1e-5


def test_rows_and_columns_may_change_places() -> None:
    tasks = changes(3, 20, 30)
    assert distance(iso.common([task.T for task in tasks]).T, iso.common(tasks)) < 1e-6


def test_all_directions_are_as_strong_as_their_mean() -> None:
    tasks = changes(3, 12, 30)
    mean = float(torch.linalg.svdvals(sum(tasks).double()).mean())
    values = torch.linalg.svdvals(iso.common(tasks).double())
    assert values.tolist() == pytest.approx([mean] * 12, rel=1e-6)
    values = torch.linalg.svdvals(iso.common_and_specific(tasks).double())
    assert float(values.max() / values.min()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("merge", [iso.common, iso.common_and_specific])
def test_order_and_scale_of_the_experts(merge) -> None:
    tasks = changes(3, 20, 30)
    merged = merge(tasks)
    assert distance(merge(tasks[::-1]), merged) < 1e-5
    assert distance(merge([1e-6 * one for one in tasks]), 1e-6 * merged) < 1e-5


@pytest.mark.parametrize("merge", [iso.common, iso.common_and_specific])
def test_directions_that_nobody_changed_stay_unchanged(merge) -> None:
    tasks = changes(2, 20, 30, rank=3)
    merged = merge(tasks)
    outside = torch.linalg.svd(torch.cat(tasks, dim=1).double()).U[:, 6:]
    assert float((outside.T @ merged.double()).norm()) < 1e-5 * float(merged.norm())
    # the sum of the singular values stays: six directions share what they had
    total = float(torch.linalg.svdvals(sum(tasks).double()).sum())
    assert float(torch.linalg.svdvals(merged.double()).sum()) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("merge", [iso.common, iso.common_and_specific])
def test_an_expert_equal_to_the_base_changes_nothing(merge) -> None:
    tasks = changes(2, 8, 10)
    assert distance(merge([*tasks, torch.zeros(8, 10)]), merge(tasks)) < 1e-6


@pytest.mark.parametrize("merge", [iso.common, iso.common_and_specific])
def test_limits(merge) -> None:
    assert torch.equal(merge([torch.zeros(3, 4)] * 2), torch.zeros(3, 4))
    assert merge([torch.zeros(0, 4)] * 2).shape == (0, 4)
    assert merge([torch.tensor([[2.0]]), torch.tensor([[-5.0]])]).item() == pytest.approx(-3.0)
    broken = changes(2, 3, 4)
    broken[1][2, 1] = torch.nan
    assert merge(broken).isnan().all()


@pytest.mark.parametrize(
    ("directions", "experts", "fraction", "expected"),
    [
        (10, 2, 0.8, (8, 1)),
        (576, 3, 0.8, (459, 39)),
        (4, 3, 0.5, (1, 1)),
        (2, 3, 0.0, (2, 0)),
        (5, 2, 1.0, (5, 0)),
        (3, 2, 0.0, (1, 1)),
    ],
)
def test_directions_are_shared_out(directions, experts, fraction, expected) -> None:
    assert iso.split(directions, experts, fraction) == expected
    assert expected[0] + experts * expected[1] == directions
