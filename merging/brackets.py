"""Exact order statistics from one pass, where a sample tells where to look.

A sample of a tensor's magnitudes brackets the value at a rank. One pass then counts what lies
above the bracket and collects what lies inside, and a selection among those few gives the exact
value (Floyd and Rivest, "Expected time bounds for selection", 1975). A bracket that missed is
noticed, never trusted: `merging.selection` then does the work with two histograms.

Magnitudes are compared by their float32 bits as unsigned integers, which order as they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from merging.selection import OrderStatistic

EVERYTHING = 1 << 16  # up to here all magnitudes are collected and no sample is drawn
MOST = 0x7FFFFFFF
INFINITE = 0x7F800000
_ERRORS = 4.5  # standard errors on both sides: one bracket in 100,000 misses

Bracket = tuple[int, int]
Select = Callable[[np.ndarray, int], tuple[np.uint32, int, int]]


def sample_stride(count: int) -> int:
    """Every how manyth of `count` magnitudes to sample; odd, so that it walks through columns."""
    size = min(1 << 18, max(1 << 13, count >> 8))
    return (count // size) | 1


def brackets(sample: np.ndarray, count: int, ranks: Sequence[int]) -> list[Bracket]:
    """Disjoint brackets that hold the values at some ranks, almost surely.

    Args:
        sample: (s,) uint32, ascending bits of sampled magnitudes.
        count: magnitudes in all.
        ranks: ascending ranks in [0, count).

    Returns:
        (lowest bits, highest bits) of each bracket, both included, ascending.
    """
    found: list[Bracket] = []
    for rank in sorted(ranks):
        share = (rank + 0.5) / count
        margin = _ERRORS * math.sqrt(sample.size * share * (1 - share)) + 2
        first = math.floor(share * sample.size - margin)
        last = math.ceil(share * sample.size + margin)
        low = int(sample[first]) if first >= 0 else 0
        high = int(sample[last]) if last < sample.size else MOST
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def expected(sample: np.ndarray, count: int, bracket: Bracket) -> int:
    """Room for the magnitudes inside a bracket: what the sample says, and a quarter more."""
    low, high = np.searchsorted(sample, np.array(bracket, np.uint32) + np.array([0, 1], np.uint32))
    return int(1.25 * count * int(high - low) / sample.size) + 4096


def select(keys: np.ndarray, place: int) -> tuple[np.uint32, int, int]:
    """The key at an ascending place, and how many are above it and at it."""
    key = np.partition(keys, place)[place]
    return key, int(np.count_nonzero(keys > key)), int(np.count_nonzero(keys == key))


def locate(
    keys: Sequence[np.ndarray],
    above: Sequence[int],
    count: int,
    rank: int,
    select: Select = select,
) -> OrderStatistic | None:
    """The value at an ascending rank; None if no bracket holds it.

    Args:
        keys: for each bracket, the bits collected inside it.
        above: for each bracket, how many magnitudes lie above it.
        count: magnitudes in all.
        select: as the function of that name.
    """
    for inside, over in zip(keys, above, strict=True):
        place = rank - (count - over - inside.size)
        if 0 <= place < inside.size:
            key, higher, equal = select(inside, place)
            return OrderStatistic(float(key.view(np.float32)), over + higher, equal)
    return None
