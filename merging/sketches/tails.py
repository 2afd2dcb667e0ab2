"""What lies above a cut, read off a sketch: counts, L1 and L2 of the largest changes.

A coarse bin (1/8 octave) is found first, then one of its 16 fine bins (1/128 octave). Inside a
fine bin the entries known to be tied lie at its lower edge; the others, evenly across it. An
entry that equals the base has no change that could be kept: it counts only where all are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from merging.sketches.sketch import N_FINE, FamilySketch, fine_edges

Shares = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Shares of a tensor's entries, L1 and squared L2, each (E, T, K) float64."""


@dataclass(frozen=True)
class Tail:
    """The largest changes of every tensor. (E, T, K) float64 each, nested over K.

    Attributes:
        lower: cuts on |delta|, descending where more is kept: 0 keeps all, inf nothing.
        equal: share of the entries equal to the cut that is kept.
        entries, l1, l2: shares of the tensor's entries, L1 and squared L2 that are kept.
    """

    lower: np.ndarray
    equal: np.ndarray
    entries: np.ndarray
    l1: np.ndarray
    l2: np.ndarray


@dataclass(frozen=True)
class _Spot:
    """One fine bin per (E, T, K).

    Attributes:
        coarse, fine: its coarse bin, and its place in it.
        low, high: its edges, the upper one not above the tensor's largest change.
        loose, tied: entries spread across it, and at its lower edge.
        beyond: entries in all higher fine bins.
    """

    coarse: np.ndarray
    fine: np.ndarray
    low: np.ndarray
    high: np.ndarray
    loose: np.ndarray
    tied: np.ndarray
    beyond: np.ndarray


def keep_largest(sketch: FamilySketch, keep: np.ndarray, *, strict: bool) -> Tail:
    """The largest entries of every tensor.

    Args:
        keep: (E, T, K) numbers of entries to keep.
        strict: the cut is the value of the next entry, and everything equal to it is dropped;
            else exactly `keep` entries stay.
    """
    changed = _changed(sketch)[..., None]
    numel = sketch.numel[None, :, None]
    target = np.clip(keep + 1.0 if strict else keep, 1.0, np.maximum(changed, 1.0))
    spot = _spot(sketch, *_find(sketch, target))
    need = np.maximum(np.minimum(keep, changed) - spot.beyond, 0.0)
    loose = np.minimum(need, spot.loose)
    drops_ties = strict & (keep < changed)
    tied = np.where(drops_ties, 0.0, np.minimum(need - loose, spot.tied))
    lower = spot.high - _divide(loose, spot.loose) * (spot.high - spot.low)
    lower = np.where((tied == 0) & (loose >= spot.loose), np.nextafter(spot.low, np.inf), lower)
    lower = np.where(tied > 0, spot.low, lower)
    return _shares(sketch, spot, loose, tied, lower, (keep >= numel, keep <= 0))


def keep_largest_of_model(sketch: FamilySketch, keep: np.ndarray, *, strict: bool) -> Tail:
    """As `keep_largest` over all tensors pooled: one cut per expert and partition.

    Args:
        keep: (E, K) numbers of entries to keep of each expert.
    """
    experts, tensors = sketch.zeros.shape
    index = np.zeros((experts, 1, keep.shape[1]), dtype=np.int64)
    fine = sketch.fine.sum(axis=1, dtype=np.int64).reshape(experts, -1)
    tail = _tail(fine)
    target = np.maximum(keep + 1.0 if strict else keep, 1.0)
    for row, k in np.ndindex(*keep.shape):
        index[row, 0, k] = max(int((tail[row] >= target[row, k]).sum()) - 1, 0)
    index = np.broadcast_to(index, (experts, tensors, keep.shape[1]))
    spot = _spot(sketch, index // N_FINE, index % N_FINE)
    need = np.maximum(keep[:, None] - spot.beyond.sum(axis=1, keepdims=True), 0.0)
    share = np.minimum(_divide(need, spot.loose.sum(axis=1, keepdims=True)), 1.0)
    loose = spot.loose * share
    rest = need - loose.sum(axis=1, keepdims=True)
    if strict:
        rest = np.where(keep[:, None] < tail[:, :1, None], 0.0, rest)
    equal = np.minimum(_divide(rest, spot.tied.sum(axis=1, keepdims=True)), 1.0)
    tied = spot.tied * equal  # spread over all that are equal
    ends = (keep[:, None] >= sketch.numel.sum(), keep[:, None] <= 0)
    high = fine_edges()[index + 1]  # one cut for all tensors, whatever their largest change
    lower = np.where(rest > 0, spot.low, high - share * (high - spot.low))
    return _shares(sketch, spot, loose, tied, lower, ends)


def count_above(
    sketch: FamilySketch, row: int, columns: np.ndarray, bounds: np.ndarray
) -> np.ndarray:
    """Entries of some tensors of expert `row` with |delta| > `bounds`.

    Args:
        columns: (T,) bool, or (n,) int: tensors of the sketch.
        bounds: (n,) float64.

    Returns:
        (n,) float64.
    """
    fine = sketch.fine[row, columns].reshape(bounds.size, -1)
    ties = sketch.ties[row, columns].reshape(bounds.size, -1)
    edges = fine_edges()
    index = np.clip(np.searchsorted(edges, bounds, side="right") - 1, 0, len(edges) - 2)
    rows = np.arange(bounds.size)
    share = (edges[index + 1] - bounds) / (edges[index + 1] - edges[index])
    loose = (fine - ties)[rows, index]
    return _tail(fine)[rows, index + 1] + np.clip(share, 0.0, 1.0) * loose


def _find(sketch: FamilySketch, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coarse and fine bin of each tensor's `target`-th largest changed entry."""
    tail = _tail(sketch.counts)
    coarse = np.empty(target.shape, dtype=np.int64)
    for k in range(target.shape[2]):
        coarse[..., k] = (tail >= target[..., k, None]).sum(axis=-1) - 1
    coarse = np.clip(coarse, 0, sketch.counts.shape[2] - 1)
    beyond = np.take_along_axis(tail, coarse + 1, axis=2)
    inner = _tail(np.take_along_axis(sketch.fine, coarse[..., None], axis=2))
    fine = (inner >= (target - beyond)[..., None]).sum(axis=-1) - 1
    return coarse, np.clip(fine, 0, N_FINE - 1)


def _spot(sketch: FamilySketch, coarse: np.ndarray, fine: np.ndarray) -> _Spot:
    rows, columns = (axis[..., None] for axis in np.ogrid[: coarse.shape[0], : coarse.shape[1]])
    counts = sketch.fine[rows, columns, coarse]  # (E, T, K, N_FINE)
    beyond = np.take_along_axis(_tail(sketch.counts), coarse + 1, axis=2)
    beyond = beyond + np.take_along_axis(_tail(counts), fine[..., None] + 1, axis=3)[..., 0]
    edges = fine_edges()
    low, high = edges[coarse * N_FINE + fine], edges[coarse * N_FINE + fine + 1]
    top = sketch.max_abs[..., None]
    high = np.where((top > low) & (top < high), top, high)
    inside = sketch.fine[rows, columns, coarse, fine].astype(np.float64)
    tied = sketch.ties[rows, columns, coarse, fine].astype(np.float64)
    return _Spot(coarse, fine, low, high, inside - tied, tied, beyond)


def _mass(
    sketch: FamilySketch, spot: _Spot, loose: np.ndarray, tied: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of L1 and squared L2 in some of the spot's entries and in all beyond them."""
    rows, columns = (axis[..., None] for axis in np.ogrid[: loose.shape[0], : loose.shape[1]])
    counts = sketch.fine[rows, columns, spot.coarse]
    ties = sketch.ties[rows, columns, spot.coarse]
    index = spot.coarse[..., None] * N_FINE + np.arange(N_FINE)
    edges = fine_edges()
    low, high = edges[index], edges[index + 1]
    cut = spot.high - _divide(loose, spot.loose) * (spot.high - spot.low)
    result = []
    for values, power in ((sketch.l1, 1), (sketch.l2, 2)):
        masses = (counts - ties) * _mean_power(low, high, power) + ties * low**power
        upper = np.take_along_axis(_tail(masses), spot.fine[..., None] + 1, axis=3)[..., 0]
        partial = upper + loose * _mean_power(cut, spot.high, power) + tied * spot.low**power
        coarse = np.take_along_axis(values, spot.coarse, axis=2)
        scaled = coarse * np.minimum(_divide(partial, masses.sum(axis=-1)), 1.0)
        tail = _tail(values)
        mass = np.take_along_axis(tail, spot.coarse + 1, axis=2) + scaled
        total = tail[..., 0][..., None]
        result.append(np.divide(mass, total, out=np.ones_like(mass), where=total > 0))
    return result[0], result[1]


def _shares(
    sketch: FamilySketch,
    spot: _Spot,
    loose: np.ndarray,
    tied: np.ndarray,
    lower: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
) -> Tail:
    """What is kept where some of the spot's entries are, and all beyond them.

    Args:
        ends: where everything is kept, and where nothing is.
    """
    whole, nothing = ends
    entries = (spot.beyond + loose + tied) / np.maximum(sketch.numel, 1)[None, :, None]
    shares = (entries, *_mass(sketch, spot, loose, tied))
    entries, l1, l2 = (np.where(whole, 1.0, np.where(nothing, 0.0, part)) for part in shares)
    lower = np.where(whole, 0.0, np.where(nothing, np.inf, lower))
    return Tail(lower, _divide(tied, spot.tied), entries, l1, l2)


def _changed(sketch: FamilySketch) -> np.ndarray:
    """(E, T) float64, entries that differ from the base."""
    return sketch.counts.sum(axis=2).astype(np.float64)


def _tail(values: np.ndarray) -> np.ndarray:
    """Sums from each place of the last axis to its end: (..., n + 1), the last 0."""
    total = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(values[..., ::-1], axis=-1, out=total[..., -2::-1], dtype=np.float64)
    return total


def _mean_power(low: np.ndarray, high: np.ndarray, power: int) -> np.ndarray:
    """Mean of x**power for x even in [low, high], power 1 or 2."""
    return (low + high) / 2 if power == 1 else (low * low + low * high + high * high) / 3


def _divide(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    over, under = np.broadcast_arrays(over, under)
    return np.divide(over, under, out=np.zeros(over.shape), where=under > 0)
