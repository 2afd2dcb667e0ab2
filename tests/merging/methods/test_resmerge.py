"""ResMerge worked out by hand, and where it falls back to means."""

from __future__ import annotations

import math

import pytest
import torch

from merging.methods import resmerge
from merging.methods.resmerge import Settings
from tests.matrices import changes, distance


def diagonal(*values: float) -> torch.Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float32))


def test_two_experts_by_hand() -> None:
    # heads (4, 0, 0) and (3, 0, 0), rests (0, 1, .5) and (0, 1, 0): s = .894427, c = .973249,
    # beta = .709924
    merged, error = resmerge.merge([diagonal(4, 1, 0.5), diagonal(3, 1, 0)])
    assert merged.diagonal().tolist() == pytest.approx([0.207765, 1.011036, 0.238673], abs=2e-6)
    assert torch.equal(merged, diagonal(*merged.diagonal().tolist()))
    assert error == 0.0


def test_knobs_by_hand() -> None:
    pair = [diagonal(4, 1, 0.5), diagonal(3, 1, 0)]
    merged, _ = resmerge.merge(pair, Settings(low=0.0, high=0.0, budget=0.0))
    # c^0 = 1: the mean norm (sqrt 1.25 + 1) / 2 in the direction (0, 1.894427, .447214)
    size = (math.sqrt(1.25) + 1) / 2 / math.hypot(1.894427, 0.447214)
    expected = [0.0, 1.894427 * size, 0.447214 * size]
    assert merged.diagonal().tolist() == pytest.approx(expected, abs=2e-6)
    merged, _ = resmerge.merge(pair, Settings(directions=2, budget=1.0))
    # heads (4, 1, 0) and (3, 1, 0), rests (0, 0, .5) and 0: c = 1 / 2 <= 1 / sqrt 2, their mean
    agreement = 13 / math.sqrt(17 * 10)
    size = agreement * 0.25 / math.hypot(7, 2)
    assert merged.diagonal().tolist() == pytest.approx([7 * size, 2 * size, 0.25], abs=2e-6)


def by_full_decomposition(tasks: list[torch.Tensor]) -> torch.Tensor:
    """The released code's steps in float64, for experts that agree."""
    heads, rests = [], []
    for task in tasks:
        u, s, v = torch.linalg.svd(task.double(), full_matrices=False)
        heads.append(s[0] * torch.outer(u[:, 0], v[0]))
        rests.append(task.double() - heads[-1])

    def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((one * other).sum() / one.norm() / other.norm())

    def pairs(some: list[torch.Tensor]) -> list[float]:
        return [cosine(some[i], some[j]) for i in range(len(some)) for j in range(i)]

    mean = sum(rest / rest.norm() for rest in rests)
    coherence = sum(cosine(rest, mean) for rest in rests) / len(rests)
    similarity = sum(pairs(rests)) / len(pairs(rests))
    beta = 1 - 0.3 * 0.5 * ((similarity + 1) / 2 + (coherence + 1) / 2)
    size = coherence**beta * sum(float(rest.norm()) for rest in rests) / len(rests)
    agreement = sum(max(0.0, one) for one in pairs(heads)) / len(pairs(heads))
    head = sum(heads)
    return mean / mean.norm() * size + head / head.norm() * 0.2 * agreement * size


def test_merges_follow_the_steps() -> None:
    (shared,) = changes(1, 14, 20, seed=7)
    tasks = [(i + 1) * shared + one for i, one in enumerate(changes(3, 14, 20))]
    assert distance(resmerge.merge(tasks)[0], by_full_decomposition(tasks)) < 1e-5


def test_rests_that_do_not_agree_are_averaged() -> None:
    one, other = diagonal(0, 1, 0), diagonal(0, 0, 3)
    # cosine 0, so that c = 1 / sqrt 2 at most
    assert torch.equal(resmerge.consensus([one, other], Settings()), diagonal(0, 0.5, 1.5))
    assert torch.equal(resmerge.consensus([one, -one], Settings()), torch.zeros(3, 3))


def test_heads_that_point_apart_are_left_out() -> None:
    assert resmerge.head_agreement([diagonal(1, 0), diagonal(0, 2)]) == 0.0
    assert resmerge.head_agreement([diagonal(1, 0), diagonal(-1, 0)]) == 0.0
    assert resmerge.head_agreement([diagonal(1, 0), diagonal(3, 0), diagonal(0, 0)]) == 1.0
    assert resmerge.head_agreement([diagonal(0, 0)] * 2) == 0.0


@pytest.mark.parametrize("experts", [1, 3])
def test_equal_experts_keep_their_rest_and_a_fifth_of_its_size_in_the_head(experts) -> None:
    (change,) = changes(1, 12, 15)
    head, rest, _ = resmerge.head_and_rest(change, 1)
    assert distance(head + rest, change) < 1e-6
    merged, _ = resmerge.merge([change] * experts)
    expected = rest + 0.2 * head * rest.norm() / head.norm()
    assert distance(merged, expected) < 1e-5


def test_the_error_of_an_iterated_head_is_told() -> None:
    tasks = [one + 0.4 for one in changes(2, 60, 80)]  # one direction that stands out
    merged, error = resmerge.merge(tasks)
    assert 0 < error <= 1e-5
    for task in tasks:
        u, s, v = torch.linalg.svd(task.double())
        assert distance(resmerge.head_and_rest(task, 1)[0], s[0] * u[:, :1] @ v[:1]) < 2e-5
    assert merged.shape == (60, 80)


def test_order_scale_and_sides() -> None:
    tasks = changes(3, 20, 30)
    merged, _ = resmerge.merge(tasks)
    assert distance(resmerge.merge(tasks[::-1])[0], merged) < 1e-5
    assert distance(resmerge.merge([1e-3 * one for one in tasks])[0], 1e-3 * merged) < 1e-5
    assert distance(resmerge.merge([one.T for one in tasks])[0].T, merged) < 1e-5


def test_limits() -> None:
    assert torch.equal(resmerge.merge([torch.zeros(3, 4)] * 2)[0], torch.zeros(3, 4))
    assert resmerge.merge([torch.zeros(0, 4)] * 2)[0].shape == (0, 4)
    assert resmerge.merge([torch.tensor([[2.0]])])[0].item() == pytest.approx(0.0)  # all head
    broken = changes(2, 3, 4)
    broken[1][2, 1] = torch.nan
    assert resmerge.merge(broken)[0].isnan().all()
