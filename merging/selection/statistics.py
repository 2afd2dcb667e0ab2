"""Exact order statistics of float32 values in bounded memory, without sorting.

A float's bits, read as a signed integer and with negative numbers flipped, order as the float
does. One pass counts the upper 16 bits of that key, a second the lower 16 bits inside the bucket
that holds the wanted rank: the value is then known exactly. A third pass runs only where a cut
parts equal values. Passes see the values chunk by chunk, so a whole model is one more stream.

Tie rule: of equal magnitudes those are kept whose places are lowest (`selection.tied`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from merging.errors import NonFinite
from merging.later import torch
from merging.selection.tied import (
    END,
    KEEP_ALL,
    KEEP_NONE,
    RUN,
    Band,
    Bound,
    Cut,
    Look,
    Looked,
    Parted,
    Stops,
    between,
    bound,
    edges,
    places,
    stops,
)

Rows = Callable[[], Iterable[Sequence["torch.Tensor"]]]
"""Starts a pass: yields chunk after chunk, each a sequence of R equally long (n,) float32 rows."""

Sweep = Callable[[Sequence[Sequence[int]]], list[dict[int, np.ndarray]]]
"""One pass over R rows: for each row, the histograms of the buckets asked for. UPPER asks for the
upper 16 bits of the keys (HALF is the bucket of 0.0), a bucket for the lower 16 bits inside it."""

BUCKETS = 1 << 16
HALF = BUCKETS >> 1
UPPER = -1
SMALL = 1 << 15  # up to here one sort is cheaper than two histograms


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
        return [_by_sorting(row, row_ranks) for row, row_ranks in zip(first, ranks, strict=True)]
    del chunks, first, second
    return statistics(sweep_rows(rows), ranks)


def largest(rows: Rows, count: int, keeps: Sequence[Sequence[int]]) -> list[list[Cut]]:
    """Cuts that keep exactly the k largest values of each row, ties by lowest place.

    Args:
        rows: magnitudes (>= 0); starts a pass, called up to three times.
        count: values per row over all chunks.
        keeps: for each row, numbers k in [0, count].

    Returns:
        For each row, one Cut per k.
    """
    return largest_cuts(
        lambda ranks: order_statistics(rows, ranks),
        lambda parted: stops(look_rows(rows), parted),
        count,
        keeps,
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
    histograms = sweep([[UPPER, *row] for row in guess or [()] * len(ranks)])
    upper = [row[UPPER] for row in histograms]
    _check_finite(upper)
    buckets_of = []
    for counts, row_ranks in zip(upper, ranks, strict=True):
        ends = np.cumsum(counts)
        buckets_of.append([int(np.searchsorted(ends, rank, side="right")) for rank in row_ranks])
    missed = [
        sorted(set(want) - set(have)) for want, have in zip(buckets_of, histograms, strict=True)
    ]
    lower = histograms
    if any(missed):
        lower = [have | more for have, more in zip(histograms, sweep(missed), strict=True)]
    return [
        [
            _locate(counts, fine[bucket], bucket, rank)
            for rank, bucket in zip(row_ranks, buckets, strict=True)
        ]
        for counts, fine, row_ranks, buckets in zip(upper, lower, ranks, buckets_of, strict=True)
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
    stops: Stops,
    count: int,
    keeps: Sequence[Sequence[int]],
) -> list[list[Cut]]:
    """As `largest`, from its two ingredients.

    Args:
        find: order statistics at ascending ranks, per row.
        stops: where cuts part the entries that share a value.
    """
    inner_keeps = [[k for k in row if 0 < k < count] for row in keeps]
    empty: list[list[OrderStatistic]] = [[] for _ in keeps]
    inner_values = (
        find([[count - k for k in row] for row in inner_keeps]) if any(inner_keeps) else empty
    )
    parted = [
        Parted(index, one.value, k - one.above, one.equal)
        for index, (row, values) in enumerate(zip(inner_keeps, inner_values, strict=True))
        for k, one in zip(row, values, strict=True)
        if k - one.above < one.equal and one.value  # which zeros stay is all the same
    ]
    ends = {
        (one.row, one.value, one.nth): stop for one, stop in zip(parted, stops(parted), strict=True)
    }
    result = []
    for index, (row, inner, values) in enumerate(
        zip(keeps, inner_keeps, inner_values, strict=True)
    ):
        cuts = {0: KEEP_NONE, count: KEEP_ALL}
        for k, one in zip(inner, values, strict=True):
            stop = ends.get((index, one.value, k - one.above), END)
            cuts[k] = Cut(one.value, stop, k if one.value else one.above)
        result.append([cuts[k] for k in row])
    return result


def sweep_rows(rows: Rows) -> Sweep:
    """Histograms of torch rows."""

    def sweep(buckets: Sequence[Sequence[int]]) -> list[dict[int, np.ndarray]]:
        histograms = [{bucket: empty_histogram() for bucket in row} for row in buckets]
        for chunk in rows():
            for counts_of, values in zip(histograms, chunk, strict=True):
                if counts_of:
                    _count(values, counts_of)
        return histograms

    return sweep


def look_rows(rows: Rows) -> Look:
    """Looks at the equal entries of torch rows."""

    def look(bands: Sequence[Band]) -> list[Looked]:
        observation = Observation(bands)
        position = 0
        for chunk in rows():
            observation.add(chunk, position)
            position += chunk[0].numel()
        return observation.result()

    return look


class Observation:
    """What some bands show of the chunks added so far."""

    def __init__(self, bands: Sequence[Band]) -> None:
        self._bands = bands
        self._below = [0] * len(bands)
        self._inside = [[np.zeros(0, dtype=np.uint64)] for _ in bands]

    def add(self, rows: Sequence[torch.Tensor], first: int) -> None:
        """Looks at one chunk.

        Args:
            rows: magnitudes, each (n,) float32.
            first: index of the first of them in the scope.
        """
        places_of: dict[tuple[int, float], np.ndarray] = {}
        for index, (row, value, low, high) in enumerate(self._bands):
            if (row, value) not in places_of:
                equal = torch.nonzero(rows[row] == value).flatten().cpu().numpy()
                places_of[row, value] = places(equal + first)
            below, inside = between(places_of[row, value], low, high)
            self._below[index] += below
            self._inside[index].append(inside)

    def result(self) -> list[Looked]:
        """Per band."""
        inside = [np.concatenate(rows) for rows in self._inside]
        return list(zip(self._below, inside, strict=True))


def empty_histogram() -> np.ndarray:
    """Zero counts of 16 bits of a key, (65536,) int64."""
    return np.zeros(BUCKETS, dtype=np.int64)


def split(cuts: Sequence[Cut], start: int, stop: int) -> list[tuple[int, int, list[Bound]]]:
    """The bounds that hold for entries [start, stop) of the scope.

    Returns:
        Pieces (start, stop, bounds), exact inside each; one piece unless a run of indices ends.
    """
    return [
        (a, b, [bound(cut, a // RUN) for cut in cuts])
        for a, b in itertools.pairwise([start, *edges(start, stop), stop])
    ]


def keys(values: torch.Tensor) -> torch.Tensor:
    """int32 keys that order as the float32 values do."""
    bits = (values + 0.0).view(torch.int32)  # the sum turns -0.0 into 0.0, which equals it
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def value_of(key: int) -> float:
    """The value of a key, see `keys`."""
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
    key_bits = keys(values)
    high = (key_bits >> 16) + HALF
    for bucket, counts in counts_of.items():
        inside = high if bucket == UPPER else key_bits[high == bucket] & 0xFFFF
        if inside.numel():
            counts += torch.bincount(inside, minlength=BUCKETS).cpu().numpy()


def _locate(upper: np.ndarray, lower: np.ndarray, bucket: int, rank: int) -> OrderStatistic:
    below = int(upper[:bucket].sum())
    ends = np.cumsum(lower)
    step = int(np.searchsorted(ends, rank - below, side="right"))
    above = int(upper[bucket + 1 :].sum() + lower[step + 1 :].sum())
    key = ((bucket - HALF) << 16) | step
    return OrderStatistic(value_of(key), above, int(lower[step]))


def _check_finite(upper: Sequence[np.ndarray]) -> None:
    infinite = (HALF + 0x7F80, HALF - 0x7F80)
    for counts in upper:
        if counts[infinite[0] :].any() or counts[: infinite[1]].any():
            raise NonFinite("a value is NaN or infinite")
