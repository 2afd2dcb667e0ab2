"""Exact order statistics of float32 values in bounded memory, without sorting.

A float's bits, read as a signed integer and with negative numbers flipped, order as the float
does. One pass counts the upper 16 bits of that key, a second the lower 16 bits inside the bucket
that holds the wanted rank: the value is then known exactly. A third pass runs only where equal
values straddle a cut. Passes see the values chunk by chunk, so a whole model is one more stream.

Tie rule, everywhere: of equal magnitudes those with the lowest flat index are kept first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from merging.errors import NonFinite

Rows = Callable[[], Iterable[Sequence[torch.Tensor]]]
"""Starts a pass: yields chunk after chunk, each a sequence of R equally long (n,) float32 rows."""

_BUCKETS = 1 << 16
_SMALL = 1 << 15  # up to here one sort is cheaper than two histograms


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


KEEP_ALL = Cut(0.0, 1 << 62)
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
    if second is None and first[0].numel() <= _SMALL:
        return [_by_sorting(row, wanted) for row, wanted in zip(first, ranks, strict=True)]
    del chunks, first, second
    return _by_counting(rows, ranks)


def largest(rows: Rows, count: int, keeps: Sequence[Sequence[int]]) -> list[list[Cut]]:
    """Cuts that keep exactly the k largest values of each row, ties by lowest index.

    Args:
        rows: magnitudes (>= 0); starts a pass, called up to three times.
        count: values per row over all chunks.
        keeps: for each row, numbers k in [0, count].

    Returns:
        For each row, one Cut per k.
    """
    wanted = [[k for k in row if 0 < k < count] for row in keeps]
    found = order_statistics(rows, [[count - k for k in row] for row in wanted]) if count else []
    cuts: list[dict[int, Cut]] = [{0: KEEP_NONE, count: KEEP_ALL} for _ in keeps]
    straddling: list[tuple[int, int, float, int]] = []
    for index, (row, statistics) in enumerate(zip(wanted, found, strict=False)):
        for k, statistic in zip(row, statistics, strict=True):
            needed = k - statistic.above
            cuts[index][k] = Cut(statistic.value, 1 << 62)
            if needed < statistic.equal:
                straddling.append((index, k, statistic.value, needed))
    for index, k, value, needed in straddling:
        cuts[index][k] = Cut(value, _stop_after(rows, index, value, needed))
    return [[cuts[index][k] for k in row] for index, row in enumerate(keeps)]


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


def _by_counting(rows: Rows, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]]:
    upper = [np.zeros(_BUCKETS, dtype=np.int64) for _ in ranks]
    for chunk in rows():
        for counts, values in zip(upper, chunk, strict=True):
            buckets = (_keys(values) >> 16) + (_BUCKETS >> 1)
            counts += torch.bincount(buckets, minlength=_BUCKETS).cpu().numpy()
    _check_finite(upper)
    buckets_of = []
    for counts, wanted in zip(upper, ranks, strict=True):
        ends = np.cumsum(counts)
        buckets_of.append([int(np.searchsorted(ends, rank, side="right")) for rank in wanted])
    lower = _count_lower(rows, buckets_of)
    return [
        [
            _locate(counts, fine[bucket], bucket, rank)
            for rank, bucket in zip(wanted, buckets, strict=True)
        ]
        for counts, fine, wanted, buckets in zip(upper, lower, ranks, buckets_of, strict=True)
    ]


def _count_lower(rows: Rows, buckets_of: list[list[int]]) -> list[dict[int, np.ndarray]]:
    """Histograms of the lower 16 bits inside each wanted bucket of each row."""
    lower = [
        {bucket: np.zeros(_BUCKETS, dtype=np.int64) for bucket in buckets} for buckets in buckets_of
    ]
    if not any(lower):
        return lower
    for chunk in rows():
        for fine, values in zip(lower, chunk, strict=True):
            if not fine:
                continue
            keys = _keys(values)
            high = (keys >> 16) + (_BUCKETS >> 1)
            for bucket, counts in fine.items():
                inside = keys[high == bucket] & 0xFFFF
                if inside.numel():
                    counts += torch.bincount(inside, minlength=_BUCKETS).cpu().numpy()
    return lower


def _locate(upper: np.ndarray, lower: np.ndarray, bucket: int, rank: int) -> OrderStatistic:
    below = int(upper[:bucket].sum())
    ends = np.cumsum(lower)
    step = int(np.searchsorted(ends, rank - below, side="right"))
    above = int(upper[bucket + 1 :].sum() + lower[step + 1 :].sum())
    key = ((bucket - (_BUCKETS >> 1)) << 16) | step
    return OrderStatistic(_value_of(key), above, int(lower[step]))


def _check_finite(upper: Sequence[np.ndarray]) -> None:
    infinite = (0x7F80 + (_BUCKETS >> 1), (_BUCKETS >> 1) - 0x7F80)
    for counts in upper:
        if counts[infinite[0] :].any() or counts[: infinite[1]].any():
            raise NonFinite("a value is NaN or infinite")


def _stop_after(rows: Rows, index: int, value: float, needed: int) -> int:
    """Flat index just past the `needed`-th entry of row `index` that equals `value`."""
    position = 0
    for chunk in rows():
        values = chunk[index]
        equal = values == value
        here = int(equal.sum())
        if here >= needed:
            return position + int(torch.nonzero(equal)[needed - 1]) + 1
        needed -= here
        position += values.numel()
    raise AssertionError("fewer ties than were counted")
