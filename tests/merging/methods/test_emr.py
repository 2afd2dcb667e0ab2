"""EMR-Merging worked out by hand, and what its bits and numbers promise."""

from __future__ import annotations

import pytest
import torch

from merging.methods import emr
from tests.matrices import changes

FIRST = torch.tensor([0.9, -0.2, 0.5, 0.0, -0.6, 0.1, 0.3, -0.4, 0.05, 0.7])
SECOND = torch.tensor([-0.3, -0.8, 0.4, 0.2, 0.6, -0.1, -0.9, 0.4, 0.0, 0.6])
THIRD = torch.tensor([0.5, 0.1, -0.7, 0.0, 0.05, -0.3, 0.2, -0.1, -0.2, 0.8])


def bits(text: str) -> list[bool]:
    return [one == "1" for one in text]


def test_three_tasks_by_hand() -> None:
    tasks = [FIRST, SECOND, THIRD]
    union = emr.unified(tasks)
    expected = [0.9, -0.8, 0.5, 0.2, 0.6, -0.3, -0.9, -0.4, -0.2, 0.8]
    assert union.tolist() == pytest.approx(expected)
    masks = [emr.mask(one, union) for one in tasks]
    for mask, text in zip(masks, ("1110000101", "0111111001", "1000110111"), strict=True):
        assert mask.tolist() == bits(text)
    factors = [emr.rescaler([emr.sums(one, union)]) for one in tasks]
    assert factors == pytest.approx([1.102941, 1.048780, 0.921875], abs=1e-6)
    model = emr.task(torch.ones(10), union, masks[0], factors[0])
    shown = [0.992647, -0.882353, 0.551471, 0, 0, 0, 0, -0.441176, 0, 0.882353]
    assert (model - 1).tolist() == pytest.approx(shown, abs=1e-6)


@pytest.mark.parametrize(
    ("rescale", "expected"),
    [("element", [0.772727, 1.111111]), ("tensor_mean", [0.909091, 1.074074]), ("none", [1, 1])],
)
def test_rescalers_of_a_model_of_two_tensors(rescale, expected) -> None:
    tensors = [(FIRST[:4], SECOND[:4]), (torch.tensor([0.1]), torch.tensor([-0.3]))]
    unions = [emr.unified(pair) for pair in tensors]
    for task in range(2):
        parts = [emr.sums(pair[task], u) for pair, u in zip(tensors, unions, strict=True)]
        assert emr.rescaler(parts, rescale) == pytest.approx(expected[task], abs=1e-6)


def test_sums_of_chunks_add_up() -> None:
    one, other = changes(2, 1, 1000)
    union = emr.unified([one, other])
    whole = emr.sums(one, union)
    parts = [emr.sums(one[:, a : a + 300], union[:, a : a + 300]) for a in range(0, 1000, 300)]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert total.count == whole.count
    assert total.change == pytest.approx(whole.change, rel=1e-14)
    assert total.masked == pytest.approx(whole.masked, rel=1e-14)


def test_exact_opposites_elect_nobody_or_the_negative_one() -> None:
    pair = [torch.tensor([0.5, 0.0]), torch.tensor([-0.5, 0.0])]
    assert emr.unified(pair).tolist() == [0.0, 0.0]
    assert emr.unified(pair, zero_sign="negative").tolist() == [-0.5, 0.0]


def test_one_task_is_that_expert() -> None:
    (change,) = changes(1, 5, 7)
    union = emr.unified([change])
    factor = emr.rescaler([emr.sums(change, union)])
    assert factor == 1.0 and torch.equal(union, change)
    assert torch.equal(emr.task(torch.zeros(5, 7), union, emr.mask(change, union), 1.0), change)


def test_equal_experts_are_recovered_exactly_and_unequal_ones_keep_their_mean_size() -> None:
    (change,) = changes(1, 5, 7)
    assert torch.equal(emr.unified([change] * 3), change)
    tasks = changes(4, 20, 30)
    union = emr.unified(tasks)
    for one in tasks:
        mask = emr.mask(one, union)
        model = emr.task(torch.zeros(20, 30), union, mask, emr.rescaler([emr.sums(one, union)]))
        assert float(model.abs().mean()) == pytest.approx(float(one.abs().mean()), rel=1e-6)
        assert (union.abs() >= one.abs())[mask].all()


def test_order_and_scale_of_the_experts() -> None:
    tasks = [torch.randint(-8, 9, (6, 6)).float() / 64 for _ in range(3)]
    union = emr.unified(tasks)
    assert torch.equal(emr.unified(tasks[::-1]), union)
    tiny = [one * 2.0**-130 for one in tasks]
    assert torch.equal(emr.unified(tiny), union * 2.0**-130)
    assert torch.equal(emr.mask(tiny[0], emr.unified(tiny)), emr.mask(tasks[0], union))


def test_an_expert_equal_to_the_base_gets_factor_0_and_stays_the_base() -> None:
    zero, (change,) = torch.zeros(3, 3), changes(1, 3, 3)
    union = emr.unified([zero, change])
    assert torch.equal(union, change)
    assert emr.rescaler([emr.sums(zero, union)]) == 0.0
    assert emr.rescaler([], "element") == 0.0
    empty = emr.sums(torch.zeros(0), torch.zeros(0))
    assert emr.rescaler([empty, emr.sums(change, union)], "tensor_mean") == 1.0


def test_nan_is_seen_in_every_task() -> None:
    tasks = [torch.tensor([1.0, torch.nan]), torch.tensor([2.0, 1.0])]
    union = emr.unified(tasks)
    assert union[0] == 2.0 and union[1].isnan()
    factor = emr.rescaler([emr.sums(tasks[1], union)])
    assert factor != factor
    assert emr.task(torch.zeros(2), union, emr.mask(tasks[1], union), 1.0)[1].isnan()


def test_differences_of_bfloat16_models_come_back_to_the_bit() -> None:
    base = torch.randn(64, generator=torch.Generator().manual_seed(0)).bfloat16()
    expert = (base + 0.01).bfloat16()
    change = expert.float() - base.float()
    union = emr.unified([change, -change / 2])
    model = emr.task(base.float(), union, emr.mask(change, union), 1.0)
    assert torch.equal(model.bfloat16(), expert)
