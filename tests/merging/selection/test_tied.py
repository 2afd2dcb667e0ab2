"""Which of many equal changes stay: places worked out by hand, and the search for the last."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.selection import tied
from merging.selection.tied import (
    END,
    RUN,
    Band,
    Bound,
    Cut,
    Parted,
    between,
    bound,
    edges,
    place,
    places,
)


def test_places_by_hand() -> None:
    # index i of the first block is in the stripe 297 i % 512: 0, 297, 594 - 512 = 82
    assert [place(i) >> 32 for i in range(3)] == [0, 297 << 23, 82 << 23]
    # block 1 begins at the lane 0x9E3779B1 >> 23 = 316, whose stripe is 297 * 316 % 512 = 156
    assert place(512) >> 32 == (156 << 23) + 1
    assert place(512 + 3) >> 32 == (156 + 3 * 297 - 2 * 512 << 23) + 1
    assert place(RUN) == 1  # the same upper half as index 0, in the second run
    assert place(RUN + 2) == (82 << 55) + 1
    indices = np.array([0, 1, 2, 512, 515, RUN - 1, RUN, RUN + 2, 7 * RUN + 99], dtype=np.int64)
    assert places(indices).tolist() == [place(int(index)) for index in indices]
    assert tied.upper_places(RUN - 1, RUN + 2, "cpu").tolist() == [
        place(RUN + offset) >> 32 for offset in (-1, 0, 1)
    ]


def test_no_two_indices_share_a_place() -> None:
    assert np.unique(places(np.arange(1 << 20))).size == 1 << 20


def test_a_stripe_has_one_index_of_every_block() -> None:
    for stripe in (0, 297, 511):
        indices = tied.in_stripe(stripe, 1024, 5000)
        assert (indices // 512).tolist() == [2, 3, 4, 5, 6, 7, 8, 9][: indices.size]
        assert indices.size in (7, 8) and indices.max() < 5000  # the last block ends before 5120
        assert {place(int(index)) >> 55 for index in indices} == {stripe}


@pytest.mark.parametrize("width", [64, 512, 576, 1536, 2048, 4096])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_every_column_keeps_its_share(width: int, share: float) -> None:
    """Of a constant matrix: a column that always lost its changes would be an input unheard."""
    kept = places(np.arange(2048 * width)) < np.uint64(int(share * END))
    in_columns = kept.reshape(2048, width).mean(0)
    assert abs(in_columns - share).max() <= 0.02


@pytest.mark.parametrize("width", [64, 576, 1536, 4096])
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_every_row_keeps_its_share(width: int, share: float) -> None:
    """Of a constant matrix, whose rows would otherwise go from first to last."""
    every = places(np.arange(200 * width))
    kept = every < np.sort(every)[round(share * every.size)]
    in_rows = kept.reshape(200, width).sum(1)
    # one more or less in each of its blocks, by the one stripe that is parted
    assert abs(in_rows - share * width).max() <= max(4, width / 512)


def test_neighbours_keep_their_share() -> None:
    stripes = (places(np.arange(512)) >> np.uint64(55)).astype(int)
    for low in range(512):
        ends = np.concatenate([[0], np.cumsum(np.tile(stripes < low, 2))])
        for size in (16, 32, 64, 128, 256):
            assert abs(ends[size:] - ends[:-size] - size * low / 512).max() <= 3


def test_bounds_by_hand() -> None:
    above = float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert bound(Cut(0.5, 0), 0) == Bound(above, above, 0)  # no tie stays
    assert bound(Cut(0.5, END), 3) == Bound(0.5, 0.5, 0)  # all do
    stop = (9 << 32) + 2  # upper half 9 stays in the runs 0 and 1
    assert [bound(Cut(0.5, stop), run).ties for run in (0, 1, 2, 3)] == [10, 10, 9, 9]
    assert edges(RUN - 5, 2 * RUN + 1) == [RUN, 2 * RUN]
    assert edges(RUN, 2 * RUN) == []


def everything(found: np.ndarray, asked: list):
    """Looks at places that are all known, and writes down how many were handed over."""

    def look(bands: list[Band]) -> list[tuple[int, np.ndarray]]:
        result = [between(found, band.low, band.high) for band in bands]
        asked.append(sum(inside.size for _, inside in result))
        return result

    return look


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 1 << 40), min_size=1, max_size=60), st.data())
def test_exactly_the_nth_place_is_the_last(indices: set[int], data) -> None:
    found = places(np.array(sorted(indices), dtype=np.int64))
    nth = data.draw(st.integers(1, found.size))
    (stop,) = tied.stops(everything(found, []), [Parted(0, 1.0, nth, found.size)])
    assert int((found < np.uint64(stop)).sum()) == nth if stop < END else nth == found.size


def test_one_look_at_a_few_places_is_enough_where_they_are_spread() -> None:
    found = places(np.arange(0, 3_000_000, 3))
    asked: list[int] = []
    parted = [Parted(0, 1.0, nth, found.size) for nth in (1, 700_000, 999_999)]
    stops = tied.stops(everything(found, asked), parted)
    assert [int((found < np.uint64(stop)).sum()) for stop in stops] == [1, 700_000, 999_999]
    assert len(asked) == 1 and asked[0] < 30_000


@pytest.mark.parametrize("crowd", [0.0, 0.4, 0.999])
def test_crowded_places_cost_looks_but_no_entry(crowd: float) -> None:
    every = np.sort(places(np.arange(4_000_000)))
    first = int(crowd * every.size)
    found = every[first : first + 200_000] if crowd < 0.9 else every[-200_000:]
    for nth in (1, 77_777, 200_000):
        asked: list[int] = []
        (stop,) = tied.stops(everything(found, asked), [Parted(0, 1.0, nth, found.size)])
        assert int((found < np.uint64(stop)).sum()) == nth
        assert len(asked) <= 8
