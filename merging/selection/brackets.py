"""Exact order statistics from one pass, where a sample tells where to look.

A sample of a tensor's magnitudes brackets the value at a rank. One pass then counts what lies
above the bracket and collects what lies inside, and a selection among those few gives the exact
value (Floyd and Rivest, "Expected time bounds for selection", 1975). A bracket that missed is
noticed, never trusted: `selection.statistics` then does the work with two histograms.

Magnitudes are compared by their float32 bits as unsigned integers, which order as they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from merging.selection.statistics import OrderStatistic

EVERYTHING = 1 << 16  # up to here all magnitudes are collected and no sample is drawn
MOST = 0x7FFFFFFF
INFINITE = 0x7F800000
_ERRORS = 4.5  # standard errors on both sides: one bracket in 100,000 misses
_SHARED = 256  # a value that more than one entry in so many has is counted, not collected

Bracket = tuple[int, int]
Select = Callable[[np.ndarray, int], tuple[np.uint32, int, int]]


@dataclass(frozen=True)
class Inside:
    """The magnitudes that lie inside a bracket.

    Attributes:
        low, high: float32 bits of the bracket's ends, both included.
        above: how many magnitudes lie above it.
        size: how many lie inside.
        keys, indices: (size,) uint32, their bits and where they are; of a single value (low ==
            high) none are needed.
    """

    low: int
    high: int
    above: int
    size: int
    keys: np.ndarray
    indices: np.ndarray


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
    result: list[Bracket] = []
    for rank in sorted(ranks):
        share = (rank + 0.5) / count
        margin = _ERRORS * math.sqrt(sample.size * share * (1 - share)) + 2
        first = math.floor(share * sample.size - margin)
        last = math.ceil(share * sample.size + margin)
        low = int(sample[first]) if first >= 0 else 0
        high = int(sample[last]) if last < sample.size else MOST
        if result and low <= result[-1][1]:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        else:
            result.append((low, high))
    return result


def of_share(sample: np.ndarray, count: int, share: float) -> list[Bracket]:
    """Disjoint brackets, apart, of which the first holds the zeros and the others, almost surely,
    the cut that keeps a share of all other magnitudes.

    Args:
        sample: (s,) uint32, ascending bits of sampled magnitudes.
        count: magnitudes in all.
        share: in (0, 1).
    """
    above = 1 - int(np.searchsorted(sample, 1)) / sample.size
    margin = _ERRORS * math.sqrt(above * (1 - above) / sample.size) + 2 / sample.size
    counts = [count * min(max(above + side, 0.0), 1.0) * share for side in (margin, -margin)]
    ranks = [min(max(count - round(one), 0), count - 1) for one in counts]
    disjoint = brackets(sample, count, ranks)
    return [(0, 0), *apart(sample, [(max(disjoint[0][0], 1), max(disjoint[-1][1], 1))])]


def apart(sample: np.ndarray, disjoint: Sequence[Bracket]) -> list[Bracket]:
    """The same brackets, split around values that many entries share.

    Such a value becomes a bracket of its own, (value, value): counting it is enough, where
    collecting would take memory that grows with the tensor. bfloat16 deltas have many of them.

    Args:
        sample: (s,) uint32, ascending.
        disjoint: disjoint brackets, ascending.
    """
    result: list[Bracket] = []
    for low, high in disjoint:
        first, last = np.searchsorted(sample, np.array([low, high + 1], dtype=np.uint32))
        values, counts = np.unique(sample[first:last], return_counts=True)
        for value in map(int, values[counts > sample.size // _SHARED]):
            if low < value:
                result.append((low, value - 1))
            result.append((value, value))
            low = value + 1
        if low <= high:
            result.append((low, high))
    return result


def expected(sample: np.ndarray, count: int, bracket: Bracket) -> int:
    """Room for the magnitudes inside a bracket: what the sample says, and a quarter more. None
    is needed for a single value."""
    if bracket[0] == bracket[1]:
        return 0
    low, high = np.searchsorted(sample, np.array(bracket, np.uint32) + np.array([0, 1], np.uint32))
    return int(1.25 * count * int(high - low) / sample.size) + 4096


def select(keys: np.ndarray, place: int) -> tuple[np.uint32, int, int]:
    """The key at an ascending place, and how many are above it and at it."""
    key = np.partition(keys, place)[place]
    return key, int(np.count_nonzero(keys > key)), int(np.count_nonzero(keys == key))


def locate(
    insides: Sequence[Inside], count: int, rank: int, select: Select = select
) -> OrderStatistic | None:
    """The value at an ascending rank; None if no bracket holds it.

    Args:
        count: magnitudes in all.
        select: as the function of that name.
    """
    for one in insides:
        place = rank - (count - one.above - one.size)
        if not 0 <= place < one.size:
            continue
        if one.low == one.high:
            return OrderStatistic(float(np.uint32(one.low).view(np.float32)), one.above, one.size)
        key, higher, equal = select(one.keys, place)
        return OrderStatistic(float(key.view(np.float32)), one.above + higher, equal)
    return None
