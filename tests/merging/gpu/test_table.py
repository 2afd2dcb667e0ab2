"""The numbers that launches get, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from merging.gpu import order, table
from merging.instructions import (
    Bounds,
    Competition,
    Draw,
    Eager,
    Election,
    Keep,
    Largest,
    Outcome,
    Ranks,
    Rings,
    Selected,
    Sum,
    Unified,
)
from merging.selection.tied import KEEP_ALL, RUN, Cut

TYPES = ("BF16", "F32", "BF16")


def bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))


def row_of(decisions: list, outcome: Outcome, numel: int, output: str) -> tuple:
    """A tensor's shape and its rows of whole numbers and factors."""
    found = table.setting(decisions, outcome, numel, TYPES[: 1 + len(decisions)], output)
    assert found is not None
    row = table.whole_numbers(found.shape, [numel], [decisions], counts=[70])[0].tolist()
    return found.shape, row, table.factors([found])[0].tolist()


def test_rings_come_first_and_draws_after() -> None:
    cuts = (Cut(0.25, 3 << 32), Cut(0.125, 0))
    decisions = [Draw((5, -6), 0.5, 2.0), Rings(cuts, (1.5, 1.0), 2)]
    outcome = Outcome(Election((1.0, 0.5)), strength=0.75)
    shape, row, factors = row_of(decisions, outcome, 100, "F16")
    three, none = 3 + order.FIRST, order.FIRST
    rings = [
        [bits(0.25), three, bits(0.25), three, 0],
        [bits(0.125), none, bits(0.125), none, 0],
    ]
    assert row == [100, 2, *rings[0], *rings[1], 5, -6, 1 << 23]
    assert (shape.rings, shape.amplified) == ((-1, 2), (True, True))
    assert not shape.aligned  # 2 is no multiple of 512
    assert shape.draws_at == (12, 15, 15) and shape.draws_at[-1] == len(row)
    assert factors == [0.75, 1.0, 1.5, 1.0, 0.5, 2.0, 1.5, 1.0]
    assert shape.factor_at == (5, 6, 8) and shape.factor_at[-1] == len(factors)


def test_what_is_constant_is_part_of_the_shape() -> None:
    ranks = [Ranks((1,), (1.0,)), Ranks((2,), (1.0,))]
    shape, _, _ = row_of(ranks, Outcome(Election((1.0, 1.0))), 10, "BF16")
    flags = table.ELECTED + table.NORMALIZED + table.ZERO_IS_POSITIVE + table.EVEN + table.FINITE
    assert (shape.amplified, shape.combination) == ((False, False), flags)
    assert shape.located == (True, True)
    average = Outcome(Sum((0.5, 1.0)), base_weight=-0.5)
    shape, _, _ = row_of([Keep(), Keep()], average, 10, "BF16")
    assert (shape.rings, shape.combination) == ((0, 0), table.AVERAGED)
    assert shape.located == (False, False)


def test_of_ranks_the_row_holds_how_many_are_kept() -> None:
    ranks = [Ranks((300, 400), (0.5, 1.0)), Ranks((7, 9), (0.5, 1.0))]
    _, row, _ = row_of(ranks, Outcome(Sum((1.0, 1.0))), 1000, "F32")
    assert row[:2] == [1000, 0]
    assert row[table.RINGS + table.RANK :: table.RING] == [300, 400, 7, 9]
    assert sum(row) == 1000 + 300 + 400 + 7 + 9


def test_tensors_decided_alike_share_a_setting() -> None:
    outcome = Outcome(Sum((1.0,)), strength=0.5)
    few, many = ([Ranks((count,), (2.0,))] for count in (10, 20))
    first, second = (table.setting(row, outcome, 100, TYPES[:2], "F32") for row in (few, many))
    assert first is second


def test_bounds_of_those_that_compete_come_last() -> None:
    bounds = (Bounds(0.5, 2.0, 1.0, 5.0), Bounds(1.0, 1.0, 3.0, 3.0))
    outcome = Outcome(Competition((1.0, 0.5), "nlp", (0, 1), bounds), strength=0.5)
    shape, _, row = row_of([Keep(), Keep()], outcome, 10, "BF16")
    assert (shape.variant, shape.active) == (table.VARIANTS["reference"], (0, 1))
    assert row[:7] == [0.5, 1.0, 1.0, 1.0, 0.5, 1.0, 1.0]
    assert row[7:] == [0.5, 2.0, 1.5, 1.0, 5.0, 4.0, 1.0, 1.0, 1.0, -1.0, 3.0, 3.0, -1.0, 3.0]
    assert (shape.factor_at[-1], shape.factors) == (7, len(row))


def test_where_opposites_out_vote_each_other_no_score_is_enough() -> None:
    assert table.numbers_of([Bounds(0.5, 2.0, 0.0, 0.0)])[table.LEAST] == math.inf
    assert table.numbers_of([Bounds(2.0, 2.0, 0.0, 0.0)])[table.LEAST] == 0.0


def test_what_the_variance_selects_is_a_ring_after_all_others() -> None:
    decisions, kept = [Keep(), Keep()], Selected(None, Largest(70), 0.25)
    few, many = (replace(kept, cut=Largest(count)) for count in (10, 70))
    settings = [table.setting(decisions, Outcome(one), 99, TYPES, "F32") for one in (few, many)]
    assert settings[0] is settings[1] is not None
    shape, row, factors = row_of(decisions, Outcome(kept), 99, "F32")
    assert shape.selects and shape.ring_at == (0, 0, 1)
    assert shape.combination == table.SELECTED + table.EVEN + table.WEIGHED
    assert factors == [1.0, 1.0, 0.25, 0.0, 0.0, 1.0, 1.0]
    assert row == [99, 0, 0, 0, 0, 0, 70]
    shape, _, factors = row_of(decisions, Outcome(Selected((0.5, 0.75), KEEP_ALL)), 99, "F32")
    assert not shape.selects and shape.combination == table.SELECTED + table.EVEN
    assert factors[table.WEIGHTS :][:2] == [0.5, 0.75]
    known = Selected((0.5, 0.5), Cut(1.0, 5))
    assert table.setting(decisions, Outcome(known), 99, TYPES, "F32") is None


def test_what_has_no_kernel_is_left_to_torch() -> None:
    union = Unified((1.0,), 0, 1.0)
    assert table.setting([Keep()], Outcome(union), 10, TYPES[:2], "F32") is None
    own = Eager(lambda delta, start: delta)
    assert table.setting([own], Outcome(Sum((1.0,))), 10, TYPES[:2], "F32") is None


def test_a_tensor_in_which_a_run_of_indices_ends_is_left_to_torch() -> None:
    rings = Rings((Cut(0.5, 1),), (1.0,), RUN - 5)
    outcome = Outcome(Sum((1.0,)))
    assert table.setting([rings], outcome, 5, TYPES[:2], "F32") is not None
    assert table.setting([rings], outcome, 6, TYPES[:2], "F32") is None
    _, row, _ = row_of([rings], outcome, 5, "F32")
    assert row[table.INDEX] == -5  # of the run, as a signed number
