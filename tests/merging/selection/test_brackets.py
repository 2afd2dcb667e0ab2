"""Selection from a sample's brackets: exact where they hold, noticed where they miss."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.engines.fused import selecting
from merging.selection import brackets
from merging.selection.statistics import OrderStatistic


def bits(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32).view(np.uint32)


def locate(keys: np.ndarray, wanted: list[brackets.Bracket], rank: int) -> OrderStatistic | None:
    """Located in what the fused loop finds, with numpy: of single values only their number."""
    found = []
    for low, high in wanted:
        inside = keys[(keys >= low) & (keys <= high)]
        above = int((keys > high).sum())
        kept = inside if low < high else inside[:0]
        found.append(brackets.Inside(low, high, above, inside.size, kept, kept))
    return brackets.locate(found, keys.size, rank)


def test_a_value_is_located_with_what_lies_above_and_at_it() -> None:
    keys = bits(3.0, 1.0, 2.0, 2.0, 5.0, 0.5)
    low, high = (int(value) for value in bits(1.5, 3.5))
    # ascending: 0.5 1 2 2 3 5
    assert locate(keys, [(low, high)], 2) == OrderStatistic(2.0, 2, 2)
    assert locate(keys, [(low, high)], 3) == OrderStatistic(2.0, 2, 2)
    assert locate(keys, [(low, high)], 4) == OrderStatistic(3.0, 1, 1)


def test_a_single_value_is_located_by_its_number() -> None:
    keys = bits(3.0, 1.0, 2.0, 2.0, 5.0, 0.5)
    two = int(bits(2.0)[0])
    assert locate(keys, [(two, two)], 2) == OrderStatistic(2.0, 2, 2)
    assert locate(keys, [(two, two)], 3) == OrderStatistic(2.0, 2, 2)
    assert locate(keys, [(two, two)], 4) is None


@pytest.mark.parametrize("rank", [0, 1, 5])
def test_a_bracket_that_misses_is_noticed(rank: int) -> None:
    keys = bits(3.0, 1.0, 2.0, 2.0, 5.0, 0.5)
    low, high = (int(value) for value in bits(1.5, 3.5))
    assert locate(keys, [(low, high)], rank) is None


def test_of_a_sample_of_everything_the_bracket_holds_the_value() -> None:
    sample = np.sort(bits(*np.linspace(0, 1, 1001)))
    ((low, high),) = brackets.brackets(sample, 1001, [500])
    # 4.5 standard errors of a share of 1/2 in 1001 draws are 71.2; and 2
    assert sample[500 - 73] == low or sample[500 - 74] == low
    assert low < sample[500] < high


def test_brackets_at_the_ends_are_open() -> None:
    sample = np.sort(bits(*np.linspace(1, 2, 1001)))
    (first, last) = brackets.brackets(sample, 1001, [0, 1000])
    assert first[0] == 0 and last[1] == brackets.MOST


def test_near_ranks_share_a_bracket() -> None:
    sample = np.sort(bits(*np.linspace(1, 2, 1001)))
    assert len(brackets.brackets(sample, 100_000, [50_000, 50_100, 90_000])) == 2


def test_the_stride_is_odd_and_bounds_the_sample() -> None:
    for count in (1 << 16, 1 << 20, 1 << 26, 11_534_336, 524_288_000):
        stride = brackets.sample_stride(count)
        assert stride % 2 == 1
        assert 1 << 12 <= count // stride <= 1 << 19


def test_room_is_what_the_sample_says_and_a_quarter_more() -> None:
    sample = np.sort(bits(*[1.0] * 30 + [2.0] * 50 + [3.0] * 20))
    two = int(bits(2.0)[0])
    assert brackets.expected(sample, 1_000_000, (two, two + 1)) == 1_250_000 // 2 + 4096
    assert brackets.expected(sample, 1_000_000, (two, two)) == 0


def test_values_that_many_share_get_brackets_of_their_own() -> None:
    sample = np.sort(bits(*[0.0] * 500, *np.linspace(1, 2, 300), *[2.0] * 200, 3.0))
    zero, one, two = (int(value) for value in bits(0.0, 1.0, 2.0))
    wanted = [(0, one), (two, two + 9)]
    # 500 zeros and 201 twos of 1001 are above 1 in 256; the single 1.0 is not
    assert brackets.apart(sample, wanted) == [
        (zero, zero), (1, one), (two, two), (two + 1, two + 9)
    ]  # fmt: skip
    assert brackets.apart(sample, [(one - 5, one + 5)]) == [(one - 5, one + 5)]
    assert brackets.apart(sample, [(two - 5, two)]) == [(two - 5, two - 1), (two, two)]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 3, 40, 1 << 20]),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_equal_to_sorting(seed: int, levels: int, shares: list[float]) -> None:
    rng = np.random.default_rng(seed)
    values = np.abs(rng.standard_t(3, 5000) * levels).round().astype(np.float32) / levels
    keys, ranks = values.view(np.uint32), sorted(int(share * 4999) for share in shares)
    sample = np.sort(keys[::7])
    wanted = brackets.apart(sample, brackets.brackets(sample, keys.size, ranks))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(wanted))
    ordered = np.sort(values)
    for rank in ranks:
        found = locate(keys, wanted, rank)
        if found is None:
            continue  # a miss: rare, and never a wrong value
        assert found.value == ordered[rank]
        assert found.above == (values > ordered[rank]).sum()
        assert found.equal == (values == ordered[rank]).sum()


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=70),
    repeat=st.integers(1, 4),
    share=st.floats(0, 1),
)
def test_the_fused_selection_is_the_plain_one(
    values: list[float], repeat: int, share: float
) -> None:
    keys = bits(*values * repeat)
    place = min(int(share * keys.size), keys.size - 1)
    assert selecting._select(keys, place) == brackets.select(keys, place)


@pytest.mark.parametrize("zeros", [0, 1, 5_000, 70_000, 99_000])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.999])
def test_brackets_of_a_share_hold_the_zeros_and_its_cut(zeros: int, share: float) -> None:
    draw = np.random.default_rng(zeros)
    values = draw.standard_t(3, 100_000).astype(np.float32) ** 2
    values[draw.permutation(values.size)[:zeros]] = 0
    values[draw.permutation(values.size)[:900]] = 1  # more than is collected
    ordered = np.sort(values)
    first, *others = brackets.of_share(np.sort(values[3::11]).view(np.uint32), values.size, share)
    kept = int(np.count_nonzero(values) * share)
    cut = int(ordered[values.size - kept].view(np.uint32))
    assert first == (0, 0)
    assert any(low <= cut <= high for low, high in others)
    assert all(1 <= low <= high for low, high in others)
    assert all(before[1] < after[0] for before, after in itertools.pairwise([first, *others]))
