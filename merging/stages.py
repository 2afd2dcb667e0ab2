"""The two axes at work: a pruner and a consensus rule driven over a family's chunks.

Each stage has whole-model measuring passes (`prepare`), per-tensor measuring (`open`), and one
pure function per chunk. The arithmetic itself lives in `merging.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch

from merging.engine import Stream, TensorReader
from merging.errors import NonFinite, RecipeError
from merging.methods import dynamic, linear, magnitude, pcb, random, ties
from merging.outliers import OutlierRates, measure_outliers
from merging.recipe import Recipe
from merging.selection import (
    KEEP_ALL,
    KEEP_NONE,
    Cut,
    largest,
    order_statistics,
    split,
)

Measured = TypeVar("Measured")
ChunkFunction = Callable[[torch.Tensor, int], torch.Tensor]
"""(delta chunk (n,) float32, its start in the tensor) -> pruned chunk (n,) float32."""

Combine = Callable[[Sequence[torch.Tensor]], torch.Tensor]
"""(pruned deltas, each (n,) float32) -> merged delta (n,) float32."""


class Pruner(Protocol):
    """One way to prune, for every expert of a recipe."""

    passes: int

    def prepare(self, stream: Stream) -> None:
        """Measures what needs the whole model."""
        ...

    def open(self, reader: TensorReader) -> list[ChunkFunction]:
        """Measures one tensor; returns the chunk function of each expert."""
        ...


class Consensus(Protocol):
    """One way to combine pruned deltas."""

    passes: int

    def prepare(self, stream: Stream, pruner: Pruner) -> None:
        """Measures what needs the whole model, on pruned deltas."""
        ...

    def open(self, reader: TensorReader, prune: Sequence[ChunkFunction]) -> Combine:
        """Measures one tensor; returns the combination."""
        ...


def make_pruner(recipe: Recipe, outliers: OutlierRates | None = None) -> Pruner:
    """The pruner a recipe asks for. `outliers`: rates already measured by a scan."""
    if recipe.prune == "none":
        return KeepEverything()
    if recipe.prune == "random":
        return RandomPruning(recipe)
    if recipe.prune == "magnitude":
        if recipe.parameters["scope"] == "model":
            return ModelMagnitude(recipe)
        return TensorMagnitude(recipe)
    return DynamicPruning(recipe, outliers)


def make_consensus(recipe: Recipe) -> Consensus:
    """The consensus rule a recipe asks for."""
    if recipe.consensus == "ties":
        return TiesConsensus(recipe)
    if recipe.consensus == "pcb":
        return PcbConsensus(recipe)
    return LinearConsensus(recipe)


def pruned(
    reader: TensorReader, prune: Sequence[ChunkFunction], start: int, stop: int
) -> list[torch.Tensor]:
    """Every expert's pruned delta for [start, stop)."""
    deltas = reader.deltas(start, stop)
    return [function(delta, start) for function, delta in zip(prune, deltas, strict=True)]


class KeepEverything:
    """prune: none."""

    passes = 0

    def prepare(self, stream: Stream) -> None:
        """Nothing to measure."""

    def open(self, reader: TensorReader) -> list[ChunkFunction]:
        return [lambda delta, start: delta] * reader.experts


class RandomPruning:
    """prune: random (DARE)."""

    passes = 0

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def prepare(self, stream: Stream) -> None:
        self._layers = stream.layers

    def open(self, reader: TensorReader) -> list[ChunkFunction]:
        return [self._expert(reader, index) for index in range(reader.experts)]

    def _expert(self, reader: TensorReader, index: int) -> ChunkFunction:
        source, entry = self._recipe.sources[index], reader.entry
        density = source.density.at(entry.name, entry.place.layer, self._layers)
        if density >= 1.0:
            return lambda delta, start: delta
        keys = random.draw_keys(self._recipe.parameters["seed"], source.model, entry.name)

        def keep(delta: torch.Tensor, start: int) -> torch.Tensor:
            return random.keep_mask(start, start + delta.numel(), density, keys, delta.device)

        scale = self._scale(reader, index, density, keep)
        return lambda delta, start: random.drop(delta, keep(delta, start), scale)

    def _scale(
        self, reader: TensorReader, index: int, density: float, keep: Callable[..., torch.Tensor]
    ) -> float:
        if not self._recipe.parameters["rescale"] or density <= 0.0:
            return 1.0
        if self._recipe.parameters["rescale_by"] == "density":
            return 1.0 / density
        total = kept = 0.0
        for start, stop in reader.spans():
            delta = reader.delta(index, start, stop)
            magnitudes = delta.abs().double()
            total += magnitudes.sum().item()
            kept += (magnitudes * keep(delta, start)).sum().item()
        return total / kept if min(total, kept) >= 1e-7 else 1.0


class _Rings:
    """Shared by the magnitude pruners: factors per ring, chunk functions from cuts."""

    passes = 0

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        mode = recipe.parameters["partition_mode"]
        self.factors = [
            magnitude.ring_factors(source.amplification, mode) for source in recipe.sources
        ]

    def prepare(self, stream: Stream) -> None:
        self._layers = stream.layers

    def _densities(self, index: int, reader: TensorReader) -> list[float]:
        source, entry = self._recipe.sources[index], reader.entry
        density = source.density.at(entry.name, entry.place.layer, self._layers)
        return magnitude.partition_densities(density, len(source.amplification))

    def _function(self, index: int, cuts: Sequence[Cut], offset: int = 0) -> ChunkFunction:
        factors = self.factors[index]
        if all(cut.value == 0.0 for cut in cuts) and set(factors) == {1.0}:
            return lambda delta, start: delta

        def apply(delta: torch.Tensor, start: int) -> torch.Tensor:
            first = offset + start
            pieces = split(cuts, first, first + delta.numel())
            parts = [
                magnitude.amplify(delta[a - first : b - first], bounds, factors)
                for a, b, bounds in pieces
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        return apply


class TensorMagnitude(_Rings):
    """prune: magnitude, scope: tensor."""

    def open(self, reader: TensorReader) -> list[ChunkFunction]:
        return [self._expert(reader, index) for index in range(reader.experts)]

    def _expert(self, reader: TensorReader, index: int) -> ChunkFunction:
        densities = self._densities(index, reader)
        keeps = [magnitude.kept_count(reader.numel, density) for density in densities]
        cuts = [KEEP_ALL if k >= reader.numel else KEEP_NONE for k in keeps]
        if any(0 < k < reader.numel for k in keeps):
            rows = magnitude_rows(reader, index)
            cuts = select(reader, lambda: largest(rows, reader.numel, [keeps]))[0]
        return self._function(index, cuts)


class ModelMagnitude(_Rings):
    """prune: magnitude, scope: model: one cut per expert over all merged tensors."""

    passes = 2

    def prepare(self, stream: Stream) -> None:
        super().prepare(stream)
        count = sum(entry.numel for entry in stream.family.merged)
        keeps = []
        for source in self._recipe.sources:
            if source.density.constant is None:
                raise RecipeError(f"models: {source.model}: scope: model needs one density")
            densities = magnitude.partition_densities(
                source.density.constant, len(source.amplification)
            )
            keeps.append([magnitude.kept_count(count, density) for density in densities])

        def rows() -> Iterator[list[torch.Tensor]]:
            for reader in stream.readers():
                for start, stop in reader.spans():
                    yield [delta.abs() for delta in reader.deltas(start, stop)]

        self._cuts = largest(rows, count, keeps)
        self._offsets = offsets(stream)

    def open(self, reader: TensorReader) -> list[ChunkFunction]:
        first = self._offsets[reader.entry.name]
        return [self._function(index, cuts, first) for index, cuts in enumerate(self._cuts)]


class DynamicPruning(_Rings):
    """prune: dynamic (DP): densities from outlier rates, then cuts per linear."""

    passes = 2

    def __init__(self, recipe: Recipe, outliers: OutlierRates | None) -> None:
        super().__init__(recipe)
        self._outliers = outliers
        self.passes = 0 if outliers is not None else 2

    def prepare(self, stream: Stream) -> None:
        super().prepare(stream)
        if self._outliers is None:
            self._outliers = measure_outliers(
                stream,
                layer_outlier=self._recipe.parameters["layer_outlier"],
                linear_outlier=self._recipe.parameters["linear_outlier"],
            )
        self._offsets = self._outliers.offsets()

    def open(self, reader: TensorReader) -> list[ChunkFunction]:
        if reader.entry.place.is_linear:
            return [self._linear(reader, index) for index in range(reader.experts)]
        scale = self._recipe.parameters["scale_dense"]
        return [_scaled(dynamic.dense_factor(scale, factors)) for factors in self.factors]

    def _linear(self, reader: TensorReader, index: int) -> ChunkFunction:
        layer, linear_offset = self._offsets[index][reader.entry.name]
        shift = self._recipe.parameters["density_shift"]
        ranks = []
        for density in self._densities(index, reader):
            rho = dynamic.densities(density, shift, np.array([layer]), np.array([linear_offset]))
            ranks.append(dynamic.cut_rank(reader.numel, float(rho[0])))
        inner = [rank for rank in ranks if 0 <= rank < reader.numel]
        found = {}
        if inner:
            rows = magnitude_rows(reader, index)
            statistics = select(reader, lambda: order_statistics(rows, [inner]))[0]
            found = dict(zip(inner, statistics, strict=True))
        cuts = []
        for rank in ranks:
            if rank < 0:
                cuts.append(KEEP_ALL)
            elif rank >= reader.numel:
                cuts.append(KEEP_NONE)
            else:
                cuts.append(Cut(found[rank].value, 0))  # strictly above: no tie is kept
        return self._function(index, cuts)


class LinearConsensus:
    """consensus: sum or mean."""

    passes = 0

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        default = recipe.consensus == "mean"
        self._normalize = recipe.parameters.get("normalize", default)

    def prepare(self, stream: Stream, pruner: Pruner) -> None:
        self._layers = stream.layers

    def open(self, reader: TensorReader, prune: Sequence[ChunkFunction]) -> Combine:
        weights = weights_at(self._recipe, reader, self._layers)
        return lambda deltas: linear.weighted_sum(deltas, weights, self._normalize)


class TiesConsensus:
    """consensus: ties."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._model_scope = recipe.parameters["scope"] == "model"
        self._zero_is_positive = True
        self.passes = 1 if self._model_scope else 0

    def prepare(self, stream: Stream, pruner: Pruner) -> None:
        self._layers = stream.layers
        if not self._model_scope:
            return
        balance = 0
        for reader in stream.readers():
            prune = pruner.open(reader)
            weights = weights_at(self._recipe, reader, self._layers)
            for start, stop in reader.spans():
                balance += ties.sign_balance(ties.vote(pruned(reader, prune, start, stop), weights))
        self._zero_is_positive = balance > 0

    def open(self, reader: TensorReader, prune: Sequence[ChunkFunction]) -> Combine:
        weights = weights_at(self._recipe, reader, self._layers)
        normalize = self._recipe.parameters["normalize"]
        return lambda deltas: ties.elect_and_merge(
            deltas, weights, normalize=normalize, zero_is_positive=self._zero_is_positive
        )


@dataclass(frozen=True)
class _Competition:
    """Who competes, and their bounds. `active`: experts that differ from the base."""

    active: tuple[int, ...]
    bounds: tuple[pcb.Bounds, ...]


class PcbConsensus:
    """consensus: pcb."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._model_scope = recipe.parameters["scope"] == "model"
        self._variant = recipe.parameters["variant"]
        self._density = recipe.parameters["pcb_density"]
        self.passes = 4 if self._model_scope else 0
        self._whole: _Competition | None = None

    def prepare(self, stream: Stream, pruner: Pruner) -> None:
        self._layers = stream.layers
        if not self._model_scope:
            return

        def chunks() -> Iterator[list[torch.Tensor]]:
            for reader in stream.readers():
                prune = pruner.open(reader)
                for start, stop in reader.spans():
                    yield pruned(reader, prune, start, stop)

        count = sum(entry.numel for entry in stream.family.merged)
        self._whole = self._measure(chunks, count, len(stream.family.experts))

    def open(self, reader: TensorReader, prune: Sequence[ChunkFunction]) -> Combine:
        def chunks() -> Iterator[list[torch.Tensor]]:
            for start, stop in reader.spans():
                yield pruned(reader, prune, start, stop)

        game = self._whole or select(
            reader, lambda: self._measure(chunks, reader.numel, reader.experts)
        )
        weights = weights_at(self._recipe, reader, self._layers)
        chosen = [weights[index] for index in game.active]

        def combine(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
            if not game.active:
                return torch.zeros_like(deltas[0])
            taus = [deltas[index] for index in game.active]
            return pcb.balance(taus, chosen, game.bounds, self._variant)

        return combine

    def _measure(
        self, chunks: Callable[[], Iterator[list[torch.Tensor]]], count: int, experts: int
    ) -> _Competition:
        if count == 0:
            return _Competition((), ())
        low, high = pcb.clip_ranks(count, pcb.CLIP[self._variant])
        found = order_statistics(
            lambda: ([tau.abs() for tau in chunk] for chunk in chunks()),
            [[low, high, count - 1]] * experts,
        )
        active = tuple(i for i, row in enumerate(found) if row[2].value > 0)
        bounds = [pcb.Bounds(found[i][0].value, found[i][1].value) for i in active]
        if not active:
            return _Competition((), ())
        ranks = [pcb.threshold_rank(count, self._density), count - 1]
        ends = order_statistics(
            lambda: (
                pcb.scores([chunk[i] for i in active], bounds, self._variant) for chunk in chunks()
            ),
            [ranks] * len(active),
        )
        complete = tuple(
            replace(bound, threshold=row[0].value, top=row[1].value)
            for bound, row in zip(bounds, ends, strict=True)
        )
        return _Competition(active, complete)


def weights_at(recipe: Recipe, reader: TensorReader, layers: int) -> list[float]:
    """The experts' weights for one tensor."""
    entry = reader.entry
    return [source.weight.at(entry.name, entry.place.layer, layers) for source in recipe.sources]


def offsets(stream: Stream) -> dict[str, int]:
    """Where each merged tensor starts in the model laid flat, tensors sorted by name."""
    starts, position = {}, 0
    for entry in stream.family.merged:
        starts[entry.name] = position
        position += entry.numel
    return starts


def magnitude_rows(reader: TensorReader, index: int) -> Callable[[], Iterator[list[torch.Tensor]]]:
    """Starts a pass over |delta| of one expert in one tensor."""

    def rows() -> Iterator[list[torch.Tensor]]:
        for start, stop in reader.spans():
            yield [reader.delta(index, start, stop).abs()]

    return rows


def select(reader: TensorReader, measure: Callable[[], Measured]) -> Measured:
    """Runs a measurement of one tensor; a non-finite value names the model that brought it."""
    try:
        return measure()
    except NonFinite:
        for start, stop in reader.spans():
            error = reader.blame(start, stop)
            if "flat index" in str(error):
                raise error from None
        raise


def _scaled(factor: float) -> ChunkFunction:
    if factor == 1.0:
        return lambda delta, start: delta
    return lambda delta, start: delta * factor
