"""Exact order statistics against sorting, whatever the chunks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.errors import NonFinite
from merging.selection import statistics as selection
from merging.selection import tied
from merging.selection.statistics import (
    UPPER,
    buckets_near,
    largest,
    order_statistics,
    split,
    statistics,
    sweep_rows,
    upper_histogram,
)
from merging.selection.tied import KEEP_ALL, KEEP_NONE, Bound, Cut

BOUNDARY = selection.SMALL


def in_chunks(rows: Sequence[torch.Tensor], *sizes: int):
    """A pass over `rows` in chunks of the sizes given, the last size repeated."""

    def start():
        position, steps = 0, list(sizes)
        while position < rows[0].numel():
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            yield [row[position : position + step] for row in rows]
            position += step

    return start


def kept(values: torch.Tensor, cut: Cut, *sizes: int) -> torch.Tensor:
    """The mask a cut stands for, applied piece by piece over chunks."""
    mask, position = torch.zeros(values.numel(), dtype=torch.bool), 0
    for (chunk,) in in_chunks([values], *sizes)():
        for a, b, (bound,) in split([cut], position, position + chunk.numel()):
            place = tied.upper_places(a, b, "cpu")
            mask[a:b] = values[a:b] >= torch.where(place < bound.ties, bound.lower, bound.upper)
        position += chunk.numel()
    return mask


def expected_mask(values: torch.Tensor, keep: int) -> torch.Tensor:
    """The `keep` largest, ties by lowest place: a stable descending sort of them in that order."""
    spread = tied.upper_places(0, values.numel(), "cpu").argsort()
    order = spread[torch.sort(values[spread], descending=True, stable=True).indices]
    mask = torch.zeros(values.numel(), dtype=torch.bool)
    mask[order[:keep]] = True
    return mask


def samples() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    n = 70_001
    normal = torch.randn(n, generator=generator)
    return {
        "normal": normal,
        "positive": normal.abs(),
        "heavy ties": torch.randint(0, 5, (n,), generator=generator).float(),
        "negative ties": -torch.randint(0, 5, (n,), generator=generator).float(),
        "mostly zero": torch.where(normal > 1.5, normal, 0.0),
        "constant": torch.full((n,), 0.25),
        "zeros": torch.zeros(n),
        "denormal": normal * 1e-41,
        "wide": normal.sign() * torch.exp(normal * 18),
        "bfloat16": normal.bfloat16().float(),
        "extremes": torch.cat([normal, torch.tensor([3.4e38, -3.4e38, 1e-45, -1e-45])]),
    }


@pytest.mark.parametrize("kind", sorted(samples()))
@pytest.mark.parametrize("sizes", [(1 << 20,), (1 << 15,), (7, 1, 40_000, 999)])
def test_values_at_ranks_equal_a_sort(kind: str, sizes: tuple[int, ...]) -> None:
    values = samples()[kind]
    ordered = torch.sort(values).values
    n = values.numel()
    ranks = [0, 1, n // 3, n // 2, n - 2, n - 1]
    (found,) = order_statistics(in_chunks([values], *sizes), [ranks])
    for rank, statistic in zip(ranks, found, strict=True):
        assert statistic.value == ordered[rank].item()
        assert statistic.equal == int((values == statistic.value).sum())
        assert statistic.above == int((values > statistic.value).sum())


@pytest.mark.parametrize("count", [1, 2, BOUNDARY - 1, BOUNDARY, BOUNDARY + 1])
def test_sizes_around_the_change_of_algorithm_agree_with_a_sort(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count))
    ranks = sorted({0, count // 2, count - 1})
    ordered = torch.sort(values).values
    for sizes in ((count,), (max(count // 3, 1),)):
        (found,) = order_statistics(in_chunks([values], *sizes), [ranks])
        assert [s.value for s in found] == [ordered[rank].item() for rank in ranks]


@pytest.mark.parametrize("sizes", [(10,), (3,)])
def test_negative_zero_equals_zero(sizes: tuple[int, ...]) -> None:
    values = torch.tensor([-0.0, 0.0, -1.0, 1.0, -0.0, 0.0])
    (found,) = order_statistics(in_chunks([values], *sizes), [[1, 2, 3, 4]])
    for statistic in found:
        assert (statistic.value, statistic.above, statistic.equal) == (0.0, 1, 4)


def test_rows_are_independent_and_may_ask_for_nothing() -> None:
    rows = [torch.arange(9.0), torch.arange(9.0).neg(), torch.zeros(9)]
    for size in (9, 4):
        first, second, third = order_statistics(in_chunks(rows, size), [[8, 0], [], [4]])
        assert [s.value for s in first] == [8.0, 0.0]
        assert second == []
        assert (third[0].value, third[0].above, third[0].equal) == (0.0, 0, 9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("size", [100, 30])
def test_values_that_are_not_finite_are_refused(bad: float, size: int) -> None:
    values = torch.arange(100.0)
    values[57] = bad
    with pytest.raises(NonFinite):
        order_statistics(in_chunks([values], size), [[50]])


def test_a_negative_nan_is_refused() -> None:
    values = torch.arange(100.0)
    values.view(torch.int32)[57] = -1  # all bits set: a NaN with its sign bit
    with pytest.raises(NonFinite):
        order_statistics(in_chunks([values], 30), [[50]])


@pytest.mark.parametrize("kind", ["positive", "heavy ties", "mostly zero", "constant", "zeros"])
@pytest.mark.parametrize("sizes", [(1 << 20,), (11, 1, 30_000)])
def test_exactly_k_largest_are_kept_ties_by_lowest_place(kind: str, sizes: tuple[int, ...]) -> None:
    values = samples()[kind].abs()
    n = values.numel()
    keeps = [0, 1, 17, n // 2, n - 1, n]
    (cuts,) = largest(in_chunks([values], *sizes), n, [keeps])
    changed = values > 0  # which zeros are kept is all the same
    for keep, cut in zip(keeps, cuts, strict=True):
        assert torch.equal(
            kept(values, cut, *sizes) & changed, expected_mask(values, keep) & changed
        )


def test_ties_across_chunks_go_to_the_lowest_place() -> None:
    # stripes of 0 to 5: 0, 297, 82, 379, 164, 461
    values = torch.tensor([1.0, 2.0, 1.0, 1.0, 2.0, 1.0])
    for size in (1, 2, 5, 6):
        (cuts,) = largest(in_chunks([values], size), 6, [[3, 4, 5]])
        assert kept(values, cuts[0], size).tolist() == [True, True, False, False, True, False]
        assert kept(values, cuts[1], size).tolist() == [True, True, True, False, True, False]
        assert kept(values, cuts[2], size).tolist() == [True, True, True, True, True, False]


def test_which_zeros_stay_is_not_looked_for() -> None:
    (cuts,) = largest(in_chunks([torch.tensor([0.0, 0.0, 3.0])], 2), 3, [[2]])
    assert cuts == [Cut(0.0, tied.END)]


def test_keeping_nothing_and_keeping_all_need_no_pass() -> None:
    def never():
        raise AssertionError("the values were read")

    assert largest(never, 0, [[0, 0]]) == [[KEEP_ALL, KEEP_ALL]]
    nothing, everything = Bound(math.inf, math.inf, 0), Bound(0.0, 0.0, 0)
    assert split([KEEP_NONE, KEEP_ALL], 3, 9) == [(3, 9, [nothing, everything])]


def test_split_cuts_only_where_a_run_of_indices_ends() -> None:
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    cut = Cut(0.5, (7 << 32) + 1)  # of places with the upper half 7, only the first run's is below
    assert split([cut], 0, 10) == [(0, 10, [Bound(0.5, above, 8)])]
    end = tied.RUN
    assert split([cut], end - 2, end + 3) == [
        (end - 2, end, [Bound(0.5, above, 8)]),
        (end, end + 3, [Bound(0.5, above, 7)]),
    ]


FLOATS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40), st.integers(1, 41), st.data())
def test_any_values_in_any_chunks_select_as_a_sort_does(values, size, data) -> None:
    row = torch.tensor(values, dtype=torch.float32)
    rank = data.draw(st.integers(0, len(values) - 1))
    ((found,),) = order_statistics(in_chunks([row], size), [[rank]])
    assert found.value == torch.sort(row).values[rank].item()
    assert found.above == int((row > found.value).sum())
    assert found.equal == int((row == found.value).sum())


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40), st.integers(1, 41), st.data())
def test_any_magnitudes_in_any_chunks_keep_the_largest(values, size, data) -> None:
    row = torch.tensor(values, dtype=torch.float32).abs()
    keep = data.draw(st.integers(0, len(values)))
    ((cut,),) = largest(in_chunks([row], size), len(values), [[keep]])
    mask, expected = kept(row, cut, size), expected_mask(row, keep)
    assert torch.equal(mask & (row > 0), expected & (row > 0))  # which zeros is all the same


def counted(values: torch.Tensor) -> tuple[list, object]:
    """What a selection asked for, sweep by sweep, and its sweep."""
    asked: list = []
    sweep = sweep_rows(in_chunks([values], 1000))

    def listening(buckets):
        asked.append([list(row) for row in buckets])
        return sweep(buckets)

    return asked, listening


def test_a_guess_that_comes_true_saves_the_second_sweep() -> None:
    values = torch.arange(1, 5001, dtype=torch.float32)
    asked, sweep = counted(values)
    bucket = buckets_near(upper_histogram(np.array([2501.0], np.float32)), 5000, [2500])
    ((found,),) = statistics(sweep, [[2500]], [bucket])
    assert (found.value, found.above, found.equal) == (2501.0, 2499, 1)
    assert asked == [[[UPPER, *bucket]]]


def test_a_wrong_guess_costs_a_sweep_and_changes_nothing() -> None:
    values = torch.arange(1, 5001, dtype=torch.float32)
    asked, sweep = counted(values)
    wrong = buckets_near(upper_histogram(np.array([7.0], np.float32)), 5000, [2500])
    ((found,),) = statistics(sweep, [[2500]], [wrong])
    assert found.value == 2501.0
    assert len(asked) == 2 and asked[1] != [wrong]


def test_buckets_near_a_rank_hold_the_samples_value() -> None:
    sample = np.array([3.0, 1.0, 2.0, 4.0, -5.0], np.float32)
    # rank 50 of 100 is the sample's middle, 2.0, whose upper 16 bits are 0x4000
    assert 0x4000 + (1 << 15) in buckets_near(upper_histogram(sample), 100, [50])
    assert buckets_near(upper_histogram(sample[:0]), 100, [50]) == []
    assert buckets_near(upper_histogram(sample * 0), 100, [0, 99]) == [1 << 15]
