"""Outlier rates of layers and linears: what dynamic pruning sets its densities by.

Source: DPPA, arXiv 2403.02799, step 1, as in its released code (see methods/dynamic.py, points 1
and 3). Sums are float64, so the rates do not depend on the chunking but for the last bit.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from merging.checkpoints import Entry
from merging.checkpoints.layout import blocks_of
from merging.declarations import shifts
from merging.declarations.measures import Near, Passes

Offsets = tuple[np.ndarray, np.ndarray]
"""Of every linear, its layer's offset and its own, each in [-1, 1]."""

_WORTH_SAMPLING = 1 << 24  # entries from which guessing by a sample saves more than it costs
_SAMPLED = 1 << 13  # entries in a sample of one linear: its mean to a percent or two


@dataclass(frozen=True)
class OutlierRates:
    """Counts of outliers per expert and linear.

    Attributes:
        linears: the linears measured, sorted by name.
        layer_counts: (E, n_linears), entries above layer_outlier * mean of the layer's linears.
        linear_counts: (E, n_linears), entries above linear_outlier * the linear's own mean.
    """

    linears: tuple[Entry, ...] = field(repr=False)
    layer_counts: np.ndarray
    linear_counts: np.ndarray

    @functools.cached_property
    def offsets(self) -> list[Offsets]:
        """Per expert."""
        layers = blocks_of([entry.name for entry in self.linears])
        numels = np.array([entry.numel for entry in self.linears], dtype=np.float64)
        rows = zip(self.layer_counts, self.linear_counts, strict=True)
        return [shifts.offsets(layers, numels, *counts) for counts in rows]


def measure_outliers(
    passes: Passes, *, layer_outlier: float, linear_outlier: float
) -> OutlierRates:
    """Counts the outliers of every linear of every expert, in two passes over the linears."""

    def measure() -> OutlierRates:
        linears = tuple(entry for entry in passes.family.merged if entry.place.is_linear)
        leave_out_others(passes, linears, times=2)
        limits = bounds(linears, passes.l1_norms(linears).T, layer_outlier, linear_outlier)
        return OutlierRates(linears, *count_outliers(passes, linears, limits, {}))

    return passes.remembered(("outliers", layer_outlier, linear_outlier), measure)


def count_outliers(
    passes: Passes,
    linears: Sequence[Entry],
    limits: np.ndarray,
    counts_by_index: Mapping[int, list[list[int]]],
) -> tuple[np.ndarray, np.ndarray]:
    """Outliers of each linear by its layer's mean, and by its own, in one pass.

    Args:
        limits: as of `bounds`.
        counts_by_index: the counts of some linears, (E, 2) by index; these are not read again.

    Returns:
        Two (E, n_linears) int64 arrays.
    """
    places = [index for index in range(len(linears)) if index not in counts_by_index]
    others = [linears[index] for index in places]
    passes.total -= sum(e.numel for e in linears) - sum(e.numel for e in others)
    counts = np.zeros((len(linears), len(passes.family.experts), 2), dtype=np.int64)
    counts[places] = passes.counts_above(others, limits[places])
    for index, row in counts_by_index.items():
        counts[index] = row
    return counts[:, :, 0].T, counts[:, :, 1].T


class Nearby:
    """Counts outliers from what a pass keeps near the likely bounds: a layer's linears as soon as
    all of them were passed and its mean is known, so that no more is held than a few layers'.

    Attributes:
        linears: the linears looked at.
        sums: (E, n_linears) float64, sum of |delta| of those passed.
        counts: by index in `linears`, (E, 2) outliers by the layer's mean and by the own; linears
            for which what was kept does not tell are missing.
    """

    def __init__(self, linears: Sequence[Entry], experts: int, multiples: tuple[float, float]):
        self.linears = linears
        self.sums = np.zeros((experts, len(linears)))
        self.counts: dict[int, list[list[int]]] = {}
        self._multiples = multiples
        self._places = {entry.name: index for index, entry in enumerate(linears)}
        self._layers = blocks_of([entry.name for entry in linears])
        self._missing = np.bincount(self._layers, minlength=1)
        self._near: dict[int, Sequence[Sequence[Near]]] = {}
        self._lock = threading.Lock()

    @property
    def limits(self) -> np.ndarray:
        """`bounds` by the sums."""
        return bounds(self.linears, self.sums, *self._multiples)

    def order(self, entry: Entry) -> tuple[int, int]:
        """What a pass sorts tensors by, so that layers are whole soon: others first, large ones
        before small ones."""
        index = self._places.get(entry.name)
        return (-1, -entry.numel) if index is None else (int(self._layers[index]), -entry.numel)

    def add(self, entry: Entry, l1: np.ndarray, near: Sequence[Sequence[Near]]) -> None:
        """Takes what was kept of a tensor, any number of threads at a time.

        Args:
            l1: (E,) sums of |delta|.
            near: per expert.
        """
        index = self._places.get(entry.name)
        if index is None:
            return
        with self._lock:
            self.sums[:, index], self._near[index] = l1, near
            self._missing[self._layers[index]] -= 1
            if self._missing[self._layers[index]]:
                return
        whole = [int(i) for i in np.flatnonzero(self._layers == self._layers[index])]
        limits = bounds([self.linears[i] for i in whole], self.sums[:, whole], *self._multiples)
        for one, own_limits in zip(whole, limits, strict=True):
            if (counts := _counted(self._near.pop(one), own_limits)) is not None:
                self.counts[one] = counts


def bounds(
    linears: Sequence[Entry], sums: np.ndarray, layer_outlier: float, linear_outlier: float
) -> np.ndarray:
    """(n_linears, E, 2) float64: above what a change is an outlier of its layer, of its linear.

    Args:
        sums: (E, n_linears) float64, sum of |delta| of each linear.
    """
    numels = np.array([entry.numel for entry in linears])
    pooled = layer_means(blocks_of([entry.name for entry in linears]), numels, sums)
    means = sums / np.maximum(numels, 1)
    return np.stack([layer_outlier * pooled.T, linear_outlier * means.T], axis=2)


def likely_bounds(
    passes: Passes, linears: Sequence[Entry], layer_outlier: float, linear_outlier: float
) -> dict[str, list[list[float]]]:
    """`bounds` by a sample of every linear, per tensor; none where no sample is cheap."""
    total = sum(entry.numel for entry in linears)
    if total < _WORTH_SAMPLING or passes.open(linears[0]).sample(linears[0].numel) is None:
        return {}
    passes.total += total  # `map` counts what it passes as read
    draws = passes.map(lambda reader: reader.sample(reader.numel // _SAMPLED | 1), "scan", linears)
    samples = [sample for sample in draws if sample is not None and sample.size]
    if len(samples) < len(linears):  # an empty linear has no mean
        return {}
    means = np.stack([np.abs(one).mean(axis=1, dtype=np.float64) for one in samples], axis=1)
    numels = np.array([entry.numel for entry in linears])
    limits = bounds(linears, means * numels, layer_outlier, linear_outlier)
    return {entry.name: limits[index].tolist() for index, entry in enumerate(linears)}


def _counted(near: Sequence[Sequence[Near]], limits: np.ndarray) -> list[list[int]] | None:
    """Outliers of one linear from what was kept of it; None where that does not tell all."""
    counts: list[list[int]] = []
    for nearby, pair in zip(near, limits, strict=True):
        answers = [[n for one in nearby if (n := one.count_above(w)) is not None] for w in pair]
        if not all(answers):
            return None
        counts.append([one[0] for one in answers])
    return counts


def leave_out_others(passes: Passes, linears: tuple[Entry, ...], times: int) -> None:
    """Takes the tensors that so many passes over the linears leave out from the work expected."""
    everything = sum(entry.numel for entry in passes.family.merged)
    passes.total -= times * (everything - sum(entry.numel for entry in linears))


def layer_means(layers: np.ndarray, numels: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The mean |delta| of each linear's layer, all its linears pooled.

    Args:
        layers, numels: (n_linears,) layer index and entries of each linear.
        sums: (E, n_linears) sum of |delta|.

    Returns:
        (E, n_linears) float64.
    """
    means = np.zeros_like(sums)
    for layer in np.unique(layers):
        inside = layers == layer
        means[:, inside] = sums[:, inside].sum(1, keepdims=True) / max(numels[inside].sum(), 1)
    return means
