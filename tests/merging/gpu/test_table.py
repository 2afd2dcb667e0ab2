"""The numbers that launches get, by hand."""

from __future__ import annotations

import math

import numpy as np
import torch

from merging.gpu import order, table
from merging.instructions import (
    Bounds,
    Competition,
    Draw,
    Election,
    Keep,
    Outcome,
    Ranks,
    Rings,
    Selected,
    Sum,
)
from merging.selection.tied import KEEP_ALL, RUN, Cut, upper_places

TYPES = ("BF16", "F32", "BF16")


def bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


def test_rings_come_first_and_draws_after() -> None:
    cuts = (Cut(0.25, 3 << 32), Cut(0.125, 0))
    decisions = [Draw((5, -6), 0.5, 2.0), Rings(cuts, (1.5, 1.0), 2)]
    outcome = Outcome(Election((1.0, 0.5)), strength=0.75)
    row = table.whole_numbers(decisions, 100, lambda index: memoryview(b""))
    three, none = 3 + order.FIRST, order.FIRST
    rings = [
        [bits(0.25), three, bits(0.25), three, 0, bits(0.25) + 1, bits(0.25) + 1],
        [bits(0.125), none, bits(0.125), none, 0, bits(0.125) + 1, bits(0.125) + 1],
    ]
    assert row == [100, 2, *rings[0], *rings[1], 5, -6, 1 << 23]
    shape = table.shape_of(decisions, outcome, TYPES, "F16")
    assert (shape.rings, shape.amplified) == ((-1, 2), (True, True))
    assert shape.draws_at == (16, 19, 19) and shape.draws_at[-1] == len(row)
    factors = table.factors(decisions, outcome)
    assert factors == [0.75, 1.0, 1.5, 1.0, 0.5, 2.0, 1.5, 1.0]
    assert shape.factor_at == (5, 6, 8) and shape.factor_at[-1] == len(factors)


def test_what_is_constant_is_part_of_the_shape() -> None:
    ranks = [Ranks((1,), (1.0,)), Ranks((2,), (1.0,))]
    ties = Outcome(Election((1.0, 1.0)))
    shape = table.shape_of(ranks, ties, TYPES, "BF16")
    flags = table.ELECTED + table.NORMALIZED + table.ZERO_IS_POSITIVE + table.EVEN + table.FINITE
    assert (shape.amplified, shape.combination) == ((False, False), flags)
    average = Outcome(Sum((0.5, 1.0)), base_weight=-0.5)
    shape = table.shape_of([Keep(), Keep()], average, TYPES, "BF16")
    assert (shape.rings, shape.combination) == ((0, 0), table.AVERAGED)


def test_ranks_become_brackets() -> None:
    expert = torch.arange(1.0, 1001.0)
    marks = order.marks(torch.zeros(1000), expert)
    placed = upper_places(0, 1000, "cpu").numpy() + order.FIRST
    row = table.whole_numbers([Ranks((300,), (1.0,))], 1000, lambda index: marks)
    first, last = (int(placed[index]) for index in (743, 487))
    assert row[:2] == [1000, 0]
    assert row[2:7] == [bits(744.0), first, bits(488.0), last, 44]
    assert row[7:] == [bits(744.0) + 1, bits(488.0) + 1]
    everything = table.whole_numbers([Ranks((1000,), (1.0,))], 1000, lambda index: marks)
    assert everything[2:] == [-1, order.FIRST, -1, order.FIRST, 0, 0, 0]


def test_bounds_of_those_that_compete_come_last() -> None:
    bounds = (Bounds(0.5, 2.0, 1.0, 5.0), Bounds(1.0, 1.0, 3.0, 3.0))
    outcome = Outcome(Competition((1.0, 0.5, 2.0), "nlp", (0, 2), bounds), strength=0.5)
    shape = table.shape_of([Keep()] * 3, outcome, (*TYPES, "F16"), "BF16")
    assert (shape.variant, shape.active) == (table.VARIANTS["reference"], (0, 2))
    row = table.factors([Keep()] * 3, outcome)
    assert row[:9] == [0.5, 1.0, 1.0, 1.0, 0.5, 2.0, 1.0, 1.0, 1.0]
    assert row[9:] == [0.5, 2.0, 1.5, 1.0, 5.0, 4.0, 1.0, 1.0, 1.0, -1.0, 3.0, 3.0, -1.0, 3.0]
    assert (shape.factor_at[-1], shape.factors) == (9, len(row))


def test_where_opposites_out_vote_each_other_no_score_is_enough() -> None:
    assert table.numbers_of([Bounds(0.5, 2.0, 0.0, 0.0)])[table.LEAST] == math.inf
    assert table.numbers_of([Bounds(2.0, 2.0, 0.0, 0.0)])[table.LEAST] == 0.0


def test_what_has_no_kernel_is_left_to_torch() -> None:
    assert not table.is_known([Keep()], Outcome(Selected((1.0,), KEEP_ALL)), 10)
    assert table.is_known([Keep(), Draw((1, 2), 0.5, 1.0)], Outcome(Sum((1.0, 1.0))), 10)


def test_a_tensor_in_which_a_run_of_indices_ends_is_left_to_torch() -> None:
    rings = Rings((Cut(0.5, 1),), (1.0,), RUN - 5)
    outcome = Outcome(Sum((1.0,)))
    assert table.is_known([rings], outcome, 5)
    assert not table.is_known([rings], outcome, 6)
