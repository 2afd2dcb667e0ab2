"""Selection over a whole model: its tensors laid flat, sorted by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from merging.checkpoints import Family
from merging.declarations.measures import Histograms, Passes, Reader
from merging.selection.statistics import UPPER, empty_histogram, largest_cuts, statistics
from merging.selection.tied import Band, Cut, Looked, stops

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
