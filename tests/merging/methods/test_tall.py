"""TALL-masks and consensus merging worked out by hand."""

from __future__ import annotations

import pytest
import torch

from merging.methods import tall
from tests.matrices import changes

TASKS = [
    torch.tensor([0.9, -0.2, 0.5, 0.0, -0.6, 0.1, 0.3, -0.4, 0.05, 0.7]),
    torch.tensor([-0.3, -0.8, 0.4, 0.2, 0.6, -0.1, -0.9, 0.4, 0.0, 0.6]),
    torch.tensor([0.5, 0.1, -0.7, 0.0, 0.05, -0.3, 0.2, -0.1, -0.2, 0.8]),
]
TOTAL = TASKS[0] + TASKS[1] + TASKS[2]


def text(mask: torch.Tensor) -> str:
    return "".join(str(int(one)) for one in mask)


@pytest.mark.parametrize(
    ("threshold", "masks", "bits"),
    [
        (0.3, ["1010101101", "0111111101", "1010111111"], "1010111101"),
        (1.0, ["1010000100", "0111101000", "0000110110"], "0010100100"),
    ],
)
def test_three_tasks_by_hand(threshold, masks, bits) -> None:
    assert [text(tall.mask(one, TOTAL, threshold)) for one in TASKS] == masks
    merged = tall.consensus(TASKS, [threshold] * 3, agreement=2)
    assert torch.equal(merged, torch.where(torch.tensor([c == "1" for c in bits]), TOTAL, 0.0))
    assert torch.equal(
        tall.task(torch.ones(10), TOTAL, TASKS[0], threshold),
        1 + TOTAL * torch.tensor([float(c) for c in masks[0]]),
    )


def test_each_expert_has_a_threshold_of_its_own() -> None:
    merged = tall.consensus(TASKS, [0.3, 1.0, 1.0], agreement=3)
    assert text(merged != 0) == "0000100000"  # 1010101101 & 0111101000 & 0000110110


def test_agreement_from_all_to_none() -> None:
    assert torch.equal(tall.consensus(TASKS, [0.3] * 3, agreement=0), TOTAL)
    assert not tall.consensus(TASKS, [0.3] * 3, agreement=4).any()


def test_a_merged_change_of_another_rule() -> None:
    merged = torch.full((10,), 0.5)
    # |tau| > |0.5 - tau| where tau is above 0.25
    assert text(tall.mask(TASKS[0], merged, 1.0)) == "1010001001"
    change = tall.consensus(TASKS, [1.0] * 3, agreement=1, merged=merged)
    assert set(change.tolist()) == {0.0, 0.5}


def test_one_task_keeps_all_it_changed() -> None:
    (change,) = changes(1, 4, 5)
    assert torch.equal(tall.task(torch.zeros(4, 5), change, change, 0.4), change)
    assert torch.equal(tall.consensus([change], [0.4], agreement=1), change)


def test_order_and_scale_of_the_experts() -> None:
    tasks = [torch.randint(-8, 9, (6, 6)).float() / 64 for _ in range(3)]
    merged = tall.consensus(tasks, [0.4] * 3)
    assert torch.equal(tall.consensus(tasks[::-1], [0.4] * 3), merged)
    assert torch.equal(tall.consensus([4 * one for one in tasks], [0.4] * 3), 4 * merged)


def test_nothing_and_nan() -> None:
    assert tall.consensus([torch.zeros(0)] * 2, [0.4] * 2).shape == (0,)
    assert not tall.consensus([torch.zeros(3)] * 2, [0.4] * 2).any()
    broken = [torch.tensor([torch.nan, 1.0]), torch.tensor([1.0, 1.0])]
    merged = tall.consensus(broken, [0.4] * 2)
    assert merged[0].isnan() and merged[1] == 2.0
    assert tall.task(torch.zeros(2), merged, broken[1], 0.4)[0].isnan()
