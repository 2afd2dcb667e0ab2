"""Selection over a whole model: its tensors laid flat, sorted by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from merging.checkpoints import Family
from merging.declarations.measures import Histograms, Passes, Reader
from merging.declarations.methods import Pruning
from merging.instructions import Competition
from merging.selection.statistics import (
    UPPER,
    buckets_near,
    empty_histogram,
    largest_cuts,
    statistics,
    upper_histogram,
)
from merging.selection.tied import Band, Cut, Looked, stops

WORTH_GUESSING = 1 << 22  # entries of a model from which a pass costs more than a sample
_GUESSED = 1 << 20  # entries sampled, about

Buckets = Sequence[Sequence[int]]


def model_offsets(family: Family) -> tuple[dict[str, int], int]:
    """Where each merged tensor starts in the model laid flat, sorted by name, and its length."""
    starts, position = {}, 0
    for entry in family.merged:
        starts[entry.name] = position
        position += entry.numel
    return starts, position


def model_cuts(passes: Passes, keeps: Sequence[Sequence[int]]) -> list[list[Cut]]:
    """The cuts that keep so many of a model's largest changes.

    Args:
        keeps: per expert, ascending numbers of entries.
    """
    offsets, count = model_offsets(passes.family)

    def look(bands: Sequence[Band]) -> list[Looked]:
        looks = passes.map(lambda r: r.look(bands, offsets[r.entry.name]))
        return [
            (sum(below for below, _ in rows), np.concatenate([inside for _, inside in rows]))
            for rows in zip(*looks, strict=True)
        ]

    sweep = ModelSweep(passes, lambda reader, buckets: reader.sweep(buckets))
    return largest_cuts(
        lambda ranks: statistics(sweep, ranks), lambda parted: stops(look, parted), count, keeps
    )


def magnitudes_at(passes: Passes, ranks: Sequence[int], pruning: Pruning) -> list[list[float]]:
    """As `Passes.magnitudes_at`, from one sweep of histograms where a sample's guess comes true."""
    count = model_offsets(passes.family)[1]
    sample = _sample(passes, pruning, count)
    guess = None
    if sample is not None:
        rows = [upper_histogram(row) for row in np.abs(sample)]
        guess = [buckets_near(row, count, _but_last(ranks, count)) for row in rows]
    sweep = ModelSweep(passes, lambda reader, buckets: reader.sweep(buckets, pruning(reader)))
    ranks_by_row = [ranks] * len(passes.family.experts)
    return [[one.value for one in row] for row in statistics(sweep, ranks_by_row, guess)]


def scores_at(
    passes: Passes,
    ranks: Sequence[int],
    pruning: Pruning,
    game: Competition,
    histograms: Callable[[np.ndarray, Competition], list[np.ndarray]],
) -> list[list[float]]:
    """As `Passes.scores_at`, from one sweep of histograms where a sample's guess comes true.

    Args:
        histograms: scores of the experts that compete for some changes, (E, s) float32, each
            (65536,) by upper bits.
    """
    count = model_offsets(passes.family)[1]
    sample = _sample(passes, pruning, count)
    guess = None
    if sample is not None:
        rows = histograms(sample, game)
        guess = [buckets_near(row, count, _but_last(ranks, count)) for row in rows]
    sweep = ModelSweep(passes, lambda reader, b: reader.score_sweep(pruning(reader), game, b))
    values = statistics(sweep, [ranks] * len(game.active), guess)
    return [[one.value for one in row] for row in values]


def _but_last(ranks: Sequence[int], count: int) -> list[int]:
    """The largest value cannot be guessed."""
    return [rank for rank in ranks if rank < count - 1]


def _sample(passes: Passes, pruning: Pruning, count: int) -> np.ndarray | None:
    """(E, s) float32: some of the model's deltas, to guess by; None where there is no cheap one or
    deltas are pruned, which may depend on where they stand."""
    if pruning.law.order != "all" or count < WORTH_GUESSING:
        return None
    return passes.sample(max(1, count // _GUESSED) | 1)


class ModelSweep:
    """Histograms over the whole model, added up tensor by tensor.

    A later sweep passes over tensors whose values all lie below the buckets it asks for: the one
    that looks for the largest value opens a tensor or two.

    Args:
        sweep: the histograms of one tensor, see `selection.statistics.Sweep`.
    """

    def __init__(self, passes: Passes, sweep: Callable[[Reader, Buckets], Histograms]):
        self._passes, self._sweep = passes, sweep
        self._highest: dict[str, list[int]] = {}

    def __call__(self, buckets: Buckets) -> Histograms:
        """The histograms of the buckets asked for, see `selection.statistics.Sweep`."""
        merged = self._passes.family.merged
        entries = [entry for entry in merged if self._reaches(entry.name, buckets)]
        self._passes.total -= sum(e.numel for e in merged) - sum(e.numel for e in entries)
        total: Histograms = [{b: empty_histogram() for b in row} for row in buckets]

        def add(reader: Reader) -> None:
            rows = self._sweep(reader, buckets)
            with self._passes.lock:  # sums of integers: the order does not matter
                for sums, row in zip(total, rows, strict=True):
                    for bucket, counts in row.items():
                        sums[bucket] += counts
                if all(UPPER in row for row in rows):
                    highest = [int(np.flatnonzero(row[UPPER]).max(initial=0)) for row in rows]
                    self._highest[reader.entry.name] = highest

        self._passes.map(add, entries=entries)
        return total

    def _reaches(self, tensor: str, buckets: Buckets) -> bool:
        if tensor not in self._highest:
            return True
        rows = zip(self._highest[tensor], buckets, strict=True)
        return any(bucket <= highest for highest, row in rows for bucket in row)
