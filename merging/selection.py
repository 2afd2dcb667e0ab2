"""Exact order statistics of float32 values in bounded memory, without sorting.

A float's bits, read as a signed integer and with negative numbers flipped, order as the float
does. One pass counts the upper 16 bits of that key, a second the lower 16 bits inside the bucket
that holds the wanted rank: the value is then known exactly. A third pass runs only where equal
values straddle a cut. Passes see the values chunk by chunk, so a whole model is one more stream.

Tie rule: of equal magnitudes those with the lowest flat index are kept first. Dynamic pruning, as
its authors, keeps none at the cut (methods/dynamic.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from merging.errors import NonFinite
from merging.later import torch

Rows = Callable[[], Iterable[Sequence["torch.Tensor"]]]
"""Starts a pass: yields chunk after chunk, each a sequence of R equally long (n,) float32 rows."""

Sweep = Callable[[Sequence[Sequence[int]]], list[dict[int, np.ndarray]]]
"""One pass over R rows: for each row, the histograms of the buckets asked for. UPPER asks for the
upper 16 bits of the keys (HALF is the bucket of 0.0), a bucket for the lower 16 bits inside it."""

BUCKETS = 1 << 16
HALF = BUCKETS >> 1
UPPER = -1
SMALL = 1 << 15  # up to here one sort is cheaper than two histograms
_END = 1 << 62


@dataclass(frozen=True)
class Cut:
    """Which entries are kept: those above `value`, and ties at it before index `tie_stop`.

    Attributes:
        value: bound on |delta|, float32-representable; 0 keeps all, inf keeps none.
        tie_stop: flat index in the scope up to which entries equal to `value` are kept.
    """

    value: float
    tie_stop: int

    @property
    def strict(self) -> float:
        """The smallest float32 above `value`: the bound where ties are dropped."""
        return float(np.nextafter(np.float32(self.value), np.float32(np.inf)))


KEEP_ALL = Cut(0.0, _END)
KEEP_NONE = Cut(math.inf, 0)


@dataclass(frozen=True)
class OrderStatistic:
    """The value at one ascending rank, and how many values exceed or equal it."""

    value: float
    above: int
    equal: int


def order_statistics(rows: Rows, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]]:
    """Values at ascending ranks, per row, over all chunks.

    Args:
        rows: starts a pass; called up to twice and must yield the same values each time.
        ranks: for each row, ranks in [0, count).

    Returns:
        For each row, one OrderStatistic per rank.

    Raises:
        NonFinite: a value is NaN or infinite.
    """
    chunks = iter(rows())
    first = next(chunks, None)
    second = next(chunks, None) if first is not None else None
    if first is None:
        raise ValueError("no values to select from")
    if second is None and first[0].numel() <= SMALL:
        return [_by_sorting(row, wanted) for row, wanted in zip(first, ranks, strict=True)]
    del chunks, first, second
    return statistics(sweep_rows(rows), ranks)


def largest(rows: Rows, count: int, keeps: Sequence[Sequence[int]]) -> list[list[Cut]]:
    """Cuts that keep exactly the k largest values of each row, ties by lowest index.

    Args:
        rows: magnitudes (>= 0); starts a pass, called up to three times.
        count: values per row over all chunks.
        keeps: for each row, numbers k in [0, count].

    Returns:
        For each row, one Cut per k.
    """
    return largest_cuts(
        lambda ranks: order_statistics(rows, ranks), nth_equal_rows(rows), count, keeps
    )


def statistics(
    sweep: Sweep,
    ranks: Sequence[Sequence[int]],
    guess: Sequence[Sequence[int]] | None = None,
) -> list[list[OrderStatistic]]:
    """Values at ascending ranks, per row, from at most two sweeps of histograms.

    Args:
        guess: for each row, buckets that likely hold the values; where they all do, one sweep
            is enough.

    Raises:
        NonFinite: a value is NaN or infinite.
    """
    if not any(ranks):
        return [[] for _ in ranks]
    found = sweep([[UPPER, *row] for row in guess or [()] * len(ranks)])
    upper = [row[UPPER] for row in found]
    _check_finite(upper)
    buckets_of = []
    for counts, wanted in zip(upper, ranks, strict=True):
        ends = np.cumsum(counts)
        buckets_of.append([int(np.searchsorted(ends, rank, side="right")) for rank in wanted])
    missed = [sorted(set(want) - set(have)) for want, have in zip(buckets_of, found, strict=True)]
    lower = found
    if any(missed):
        lower = [have | more for have, more in zip(found, sweep(missed), strict=True)]
    return [
        [
            _locate(counts, fine[bucket], bucket, rank)
            for rank, bucket in zip(wanted, buckets, strict=True)
        ]
        for counts, fine, wanted, buckets in zip(upper, lower, ranks, buckets_of, strict=True)
    ]


def buckets_near(sampled: np.ndarray, count: int, ranks: Sequence[int]) -> list[int]:
    """The buckets that likely hold the values at some ranks, by a sample's.

    Args:
        sampled: (65536,) the sample's histogram by upper bits.
        count: values in all.
        ranks: ascending ranks in [0, count). The largest value cannot be guessed.

    Returns:
        Ascending buckets: of each rank the one that its value falls into, and the neighbours
        within one standard error.
    """
    ends = np.cumsum(sampled)
    size = int(ends[-1])
    if size == 0:
        return []
    near: set[int] = set()
    for rank in ranks:
        share = (rank + 0.5) / count
        error = math.sqrt(size * share * (1 - share))
        places = [min(max(share * size + sign * error, 0), size - 1) for sign in (-1, 0, 1)]
        low, middle, high = (
            int(np.searchsorted(ends, int(place), side="right")) for place in places
        )
        near.update(range(max(low, middle - 1), min(high, middle + 1) + 1))
    return sorted(near)


def upper_histogram(values: np.ndarray) -> np.ndarray:
    """(65536,) int64: float32 values by the upper 16 bits of their keys."""
    bits = (values + np.float32(0.0)).view(np.int32)
    keys = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return np.bincount((keys >> 16) + HALF, minlength=BUCKETS)


def largest_cuts(
    find: Callable[[Sequence[Sequence[int]]], list[list[OrderStatistic]]],
    nth_equal: Callable[[int, float, int], int],
    count: int,
    keeps: Sequence[Sequence[int]],
) -> list[list[Cut]]:
    """As `largest`, from its two ingredients.

    Args:
        find: order statistics at ascending ranks, per row.
        nth_equal: (row, value, n) -> flat index of the row's n-th entry (from 1) equal to value.
    """
    wanted = [[k for k in row if 0 < k < count] for row in keeps]
    empty: list[list[OrderStatistic]] = [[] for _ in keeps]
    found = find([[count - k for k in row] for row in wanted]) if any(wanted) else empty
    result = []
    for index, (row, inner, values) in enumerate(zip(keeps, wanted, found, strict=True)):
        cuts = {0: KEEP_NONE, count: KEEP_ALL}
        for k, statistic in zip(inner, values, strict=True):
            needed = k - statistic.above
            stop = _END
            if needed < statistic.equal:
                stop = nth_equal(index, statistic.value, needed) + 1
            cuts[k] = Cut(statistic.value, stop)
        result.append([cuts[k] for k in row])
    return result


def sweep_rows(rows: Rows) -> Sweep:
    """Histograms of torch rows."""

    def sweep(buckets: Sequence[Sequence[int]]) -> list[dict[int, np.ndarray]]:
        found = [{bucket: empty_histogram() for bucket in wanted} for wanted in buckets]
        for chunk in rows():
            for counts_of, values in zip(found, chunk, strict=True):
                if counts_of:
                    _count(values, counts_of)
        return found

    return sweep


def nth_equal_rows(rows: Rows) -> Callable[[int, float, int], int]:
    """Finds ties among torch rows, see `largest_cuts`."""

    def nth_equal(index: int, value: float, nth: int) -> int:
        position = 0
        for chunk in rows():
            equal = chunk[index] == value
            here = int(equal.sum())
            if here >= nth:
                return position + int(torch.nonzero(equal)[nth - 1])
            nth -= here
            position += equal.numel()
        raise AssertionError("fewer ties than were counted")

    return nth_equal


def empty_histogram() -> np.ndarray:
    """Zero counts of 16 bits of a key, (65536,) int64."""
    return np.zeros(BUCKETS, dtype=np.int64)


def split(cuts: Sequence[Cut], start: int, stop: int) -> list[tuple[int, int, list[float]]]:
    """The bounds that hold for entries [start, stop) of the scope.

    Returns:
        Pieces (start, stop, bounds) with `|delta| >= bound` exact inside each; one piece unless
        a tie stop falls inside.
    """
    inner = sorted({cut.tie_stop for cut in cuts if start < cut.tie_stop < stop})
    edges = [start, *inner, stop]
    return [
        (a, b, [cut.value if b <= cut.tie_stop else cut.strict for cut in cuts])
        for a, b in itertools.pairwise(edges)
    ]


def _keys(values: torch.Tensor) -> torch.Tensor:
    """int32 keys that order as the float32 values do."""
    bits = (values + 0.0).view(torch.int32)  # the sum turns -0.0 into 0.0, which equals it
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _value_of(key: int) -> float:
    bits = key ^ 0x7FFFFFFF if key < 0 else key
    return float(np.array(bits, dtype=np.int32).view(np.float32))


def _by_sorting(row: torch.Tensor, ranks: Sequence[int]) -> list[OrderStatistic]:
    ordered = torch.sort(row).values.cpu().numpy()
    if ordered.size and not np.isfinite(ordered[[0, -1]]).all():
        raise NonFinite("a value is NaN or infinite")
    result = []
    for rank in ranks:
        value = ordered[rank]
        low = int(np.searchsorted(ordered, value, "left"))
        high = int(np.searchsorted(ordered, value, "right"))
        result.append(OrderStatistic(float(value), ordered.size - high, high - low))
    return result


def _count(values: torch.Tensor, counts_of: dict[int, np.ndarray]) -> None:
    keys = _keys(values)
    high = (keys >> 16) + HALF
    for bucket, counts in counts_of.items():
        inside = high if bucket == UPPER else keys[high == bucket] & 0xFFFF
        if inside.numel():
            counts += torch.bincount(inside, minlength=BUCKETS).cpu().numpy()


def _locate(upper: np.ndarray, lower: np.ndarray, bucket: int, rank: int) -> OrderStatistic:
    below = int(upper[:bucket].sum())
    ends = np.cumsum(lower)
    step = int(np.searchsorted(ends, rank - below, side="right"))
    above = int(upper[bucket + 1 :].sum() + lower[step + 1 :].sum())
    key = ((bucket - HALF) << 16) | step
    return OrderStatistic(_value_of(key), above, int(lower[step]))


def _check_finite(upper: Sequence[np.ndarray]) -> None:
    infinite = (HALF + 0x7F80, HALF - 0x7F80)
    for counts in upper:
        if counts[infinite[0] :].any() or counts[: infinite[1]].any():
            raise NonFinite("a value is NaN or infinite")
