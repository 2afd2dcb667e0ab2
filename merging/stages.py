"""The two axes at work: a pruner and a consensus rule driven over a family.

A stage measures the whole model where it must (`prepare`), then each tensor (`decide`), and
returns its decision as data. The formulas live in `merging.methods`, the passes in the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from merging.checkpoints import Entry, short_names
from merging.declarations.retention import Kept
from merging.declarations.schedules import Schedule
from merging.engines.eager import Stream, TensorReader, model_offsets
from merging.errors import RecipeError
from merging.instructions import (
    Bounds,
    Combination,
    Competition,
    Decision,
    Draw,
    Election,
    Keep,
    Outcome,
    Ranks,
    Rings,
    Sum,
    apply,
    elementary,
)
from merging.methods import dynamic, magnitude, pcb, random
from merging.recipe import Recipe, Source, averages_models
from merging.selection.statistics import (
    UPPER,
    Sweep,
    buckets_near,
    empty_histogram,
    largest_cuts,
    statistics,
    upper_histogram,
)
from merging.selection.tied import KEEP_ALL, KEEP_NONE, Band, Cut, Looked, stops
from merging.sketches.outliers import Offsets, OutlierRates, measure_outliers

_WORTH_GUESSING = 1 << 22  # entries of a model from which a pass costs more than a sample
_GUESSED = 1 << 20  # entries sampled, about
Buckets = Sequence[Sequence[int]]
Histograms = list[dict[int, np.ndarray]]
Keeps = list[tuple[int, ...]]
"""Per expert, how many entries its nested partitions hold."""


class Pruner(Protocol):
    """One way to prune, for every expert of a recipe.

    Attributes:
        passes: whole-model passes it measures.
        notes: what the user should know of this family, once prepared.
    """

    passes: int
    notes: Sequence[str]

    @property
    def kept(self) -> Mapping[str, Sequence[Kept]]:
        """Per tensor decided, what is kept of every expert's changes; where one cut is made over
        the whole model, the sum alone, under ""."""
        ...

    def prepare(self, stream: Stream) -> None:
        """Measures what needs the whole model."""
        ...

    def decide(self, reader: TensorReader) -> list[Decision]:
        """Measures one tensor; one decision per expert."""
        ...


class Consensus(Protocol):
    """One way to combine pruned deltas. `passes` and `notes` as Pruner."""

    passes: int
    notes: Sequence[str]

    def prepare(self, stream: Stream, pruner: Pruner) -> None:
        """Measures what needs the whole model, on pruned deltas."""
        ...

    def decide(self, reader: TensorReader, decisions: Sequence[Decision]) -> Combination:
        """Measures one tensor; returns how its deltas combine."""
        ...


def make_pruner(recipe: Recipe, outliers: OutlierRates | None = None) -> Pruner:
    """The pruner a recipe asks for. `outliers`: rates already measured by a scan."""
    if recipe.prune == "none":
        return KeepEverything()
    if recipe.prune == "random":
        return RandomPruning(recipe)
    if recipe.prune == "magnitude":
        whole_model = recipe.parameters["scope"] == "model"
        return ModelMagnitude(recipe) if whole_model else TensorMagnitude(recipe)
    return DynamicPruning(recipe, outliers)


def make_consensus(recipe: Recipe) -> Consensus:
    """The consensus rule a recipe asks for."""
    if recipe.consensus == "ties":
        return TiesConsensus(recipe)
    if recipe.consensus == "pcb":
        return PcbConsensus(recipe)
    return LinearConsensus(recipe)


def decide(
    recipe: Recipe, pruner: Pruner, consensus: Consensus, reader: TensorReader
) -> tuple[list[Decision], Outcome]:
    """Everything the merge of one tensor needs to know."""
    decisions = pruner.decide(reader)
    entry = reader.entry
    base_weight = 1.0
    averages = recipe.prune == "none" and averages_models(recipe.method, recipe.consensus)
    if averages and not recipe.parameters.get("normalize", True):
        base_weight = sum(weights_at(recipe, reader))  # a plain sum of whole models
    strength = value_at(recipe.strength, entry)
    return decisions, Outcome(consensus.decide(reader, decisions), strength, base_weight)


class KeepEverything:
    """prune: none."""

    passes = 0
    notes: Sequence[str] = ()
    kept: Mapping[str, Sequence[Kept]] = {}

    def prepare(self, stream: Stream) -> None:
        """Nothing to measure."""

    def decide(self, reader: TensorReader) -> list[Decision]:
        """Every expert keeps every change."""
        return [Keep()] * reader.experts


class RandomPruning:
    """prune: random (DARE)."""

    passes = 0
    notes: Sequence[str] = ()
    kept: Mapping[str, Sequence[Kept]] = {}

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._names = short_names([source.model for source in recipe.sources], recipe.folder)

    def prepare(self, stream: Stream) -> None:
        """Nothing to measure."""

    def decide(self, reader: TensorReader) -> list[Decision]:
        """One draw per expert, keyed by seed, model and tensor."""
        return [
            self._draw(reader, index, source) for index, source in enumerate(self._recipe.sources)
        ]

    def _draw(self, reader: TensorReader, index: int, source: Source) -> Decision:
        density = density_at(source, reader)
        if density >= 1.0:
            return Keep()
        values = self._recipe.parameters
        keys = random.draw_keys(values["seed"], self._names[index], reader.entry.name)
        draw = Draw(keys, density, 1.0)
        if not values["rescale"] or density <= 0.0:
            return draw
        if values["rescale_by"] == "density":
            return replace(draw, scale=1.0 / density)
        return replace(draw, scale=_l1_ratio(reader, index, draw))


def _l1_ratio(reader: TensorReader, index: int, unscaled: Decision) -> float:
    """||delta||_1 over ||kept||_1, 1 where either is below 1e-7, as mergekit."""
    total = kept = 0.0
    for start, stop in reader.spans():
        delta = reader.delta(index, start, stop)
        total += elementary.total(delta.abs())
        kept += elementary.total(apply(unscaled, delta, start).abs())
    return total / kept if min(total, kept) >= 1e-7 else 1.0


class _ByMagnitude:
    """Shared by the magnitude pruners: the factor of every ring."""

    passes = 0
    notes: Sequence[str] = ()

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        mode = recipe.parameters["partition_mode"]
        self._factors = [
            tuple(magnitude.ring_factors(source.amplification, mode)) for source in recipe.sources
        ]
        measured = recipe.consensus == "pcb" or recipe.parameters.get("rescale")
        whole_model = recipe.consensus == "ties" and recipe.parameters["scope"] == "model"
        self._cuts_may_wait = not measured and not whole_model  # nothing else is told by them
        self.kept: dict[str, list[Kept]] = {}

    def prepare(self, stream: Stream) -> None:
        """Nothing to measure."""

    @staticmethod
    def _counts(numel: int, nested: Iterable[Sequence[float]]) -> Keeps:
        """Entries that nested densities keep, per expert."""
        return [tuple(magnitude.kept_count(numel, density) for density in row) for row in nested]

    def _largest(
        self, reader: TensorReader, keeps: Keeps, dense: Sequence[float]
    ) -> list[Decision]:
        """Rings that hold exactly so many of the largest entries.

        Args:
            dense: per expert, the density that led to them.
        """
        if reader.numel == 0:
            return [Keep()] * reader.experts
        counted = [row[-1] for row in keeps]
        if reader.finds_cuts and self._cuts_may_wait:
            changed = reader.changed()
            nested = [_with_changes(reader.numel, *row) for row in zip(keeps, changed, strict=True)]
            inside = list(map(inside_rings, counted, nested, self._factors))
            self._tell(reader, dense, counted, inside)
            return list(map(Ranks, keeps, self._factors))
        cuts = largest_cuts(reader.order_statistics, reader.stops, reader.numel, keeps)
        nested = [counts_of(row, reader.numel) for row in cuts]
        self._tell(reader, dense, counted, list(map(inside_rings, counted, nested, self._factors)))
        return [self._rings(reader, index, row) for index, row in enumerate(cuts)]

    def _tell(
        self, reader: TensorReader, dense: Sequence[float], counted: Sequence[int],
        inside: Sequence[tuple[float, float, float]],
    ) -> None:  # fmt: skip
        """Notes what is kept of a tensor, see `Kept`; inside: per expert its last three."""
        numel = reader.numel
        self.kept[reader.entry.name] = [
            Kept(numel, density_at(source, reader) * numel, share * numel, count, *last)
            for source, share, count, last in zip(
                self._recipe.sources, dense, counted, inside, strict=True
            )
        ]

    def _rings(
        self, reader: TensorReader, index: int, cuts: Sequence[Cut], offset: int = 0
    ) -> Decision:
        factors = self._factors[index]
        if all(cut == KEEP_ALL for cut in cuts):
            return Keep(factors[0])
        rings = Rings(tuple(cuts), factors, offset)
        if not self._recipe.parameters.get("rescale"):
            return rings
        ratio = _l1_ratio(reader, index, replace(rings, factors=(1.0,) * len(factors)))
        return replace(rings, factors=tuple(factor * ratio for factor in factors))


class TensorMagnitude(_ByMagnitude):
    """prune: magnitude, scope: tensor."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._known: dict[int, tuple[list[float], Keeps]] = {}

    def decide(self, reader: TensorReader) -> list[Decision]:
        """Cuts that keep exactly int(density * n) entries of the tensor."""
        dense = [density_at(source, reader) for source in self._recipe.sources]
        return self._largest(reader, self._keeps(reader), dense)

    def _keeps(self, reader: TensorReader) -> Keeps:
        """Of every expert. Tensors of one size share them."""
        at = [density_at(source, reader) for source in self._recipe.sources]
        known = self._known.get(reader.numel)
        if known is None or known[0] != at:
            nested = map(magnitude.partition_densities, at, map(len, self._factors))
            known = at, self._counts(reader.numel, nested)
            self._known[reader.numel] = known
        return known[1]


class ModelMagnitude(_ByMagnitude):
    """prune: magnitude, scope: model: one cut per expert over all merged tensors."""

    passes = 2

    def prepare(self, stream: Stream) -> None:
        """Selects over the model laid flat, tensors sorted by name."""
        self._offsets, count = model_offsets(stream.family)
        keeps = []
        for source in self._recipe.sources:
            if source.density.constant is None:
                raise RecipeError(f"models: {source.model}: scope: model needs one density")
            densities = magnitude.partition_densities(
                source.density.constant, len(source.amplification)
            )
            keeps.append([magnitude.kept_count(count, density) for density in densities])

        def look(bands: Sequence[Band]) -> list[Looked]:
            found = stream.map(lambda r: r.look(bands, self._offsets[r.entry.name]))
            return [
                (sum(below for below, _ in rows), np.concatenate([inside for _, inside in rows]))
                for rows in zip(*found, strict=True)
            ]

        self._cuts = largest_cuts(
            lambda ranks: statistics(
                ModelSweep(stream, lambda reader, buckets: reader.sweep(buckets)), ranks
            ),
            lambda parted: stops(look, parted),
            count,
            keeps,
        )
        self.kept[""] = [
            Kept(
                count, asked * count, asked * count, row[-1],
                *inside_rings(row[-1], counts_of(cuts, count), factors),
            )
            for asked, row, cuts, factors in zip(
                (source.density.constant or 0.0 for source in self._recipe.sources), keeps,
                self._cuts, self._factors, strict=True,
            )
        ]  # fmt: skip

    def decide(self, reader: TensorReader) -> list[Decision]:
        """The model's cuts, seen from this tensor."""
        first = self._offsets[reader.entry.name]
        return [self._rings(reader, index, cuts, first) for index, cuts in enumerate(self._cuts)]


class DynamicPruning(_ByMagnitude):
    """prune: dynamic (DP): densities from outlier rates, then cuts per linear."""

    def __init__(self, recipe: Recipe, outliers: OutlierRates | None) -> None:
        super().__init__(recipe)
        self._outliers = outliers
        self._drops_ties = recipe.parameters["tie_rule"] == "drop"
        self.passes = 0 if outliers is not None else 2

    def prepare(self, stream: Stream) -> None:
        """Counts outliers, unless a scan has, and sets the densities by them."""
        values = self._recipe.parameters
        self._outliers = self._outliers or measure_outliers(
            stream, layer_outlier=values["layer_outlier"], linear_outlier=values["linear_outlier"]
        )
        linears = self._outliers.linears
        self._linears = {entry.name: index for index, entry in enumerate(linears)}
        self._offsets = self._outliers.offsets()
        self._densities = [
            self._nested(source, offsets, linears)
            for source, offsets in zip(self._recipe.sources, self._offsets, strict=True)
        ]

    def _nested(self, source: Source, offsets: Offsets, linears: Sequence[Entry]) -> np.ndarray:
        """(n_linears, K) densities of one expert's nested partitions."""
        shift = self._recipe.parameters["density_shift"]
        layer, linear = np.array([offsets[entry.name] for entry in linears]).reshape(-1, 2).T
        numels = np.array([entry.numel for entry in linears], dtype=np.float64)
        asked = np.array(
            [
                magnitude.partition_densities(
                    value_at(source.density, entry), len(source.amplification)
                )
                for entry in linears
            ]
        ).reshape(len(linears), len(source.amplification))
        if self._drops_ties:
            rows = [dynamic.densities(one, shift, layer, linear) for one in asked.T]
            return np.clip(rows, 0.0, 1.0).T
        moved = shift * (layer + linear)
        return np.array([dynamic.fitted(one + moved, numels, one) for one in asked.T]).T

    def decide(self, reader: TensorReader) -> list[Decision]:
        """Cuts of a linear; other tensors as `scale_dense` says."""
        if not reader.entry.place.is_linear:
            scale = self._recipe.parameters["scale_dense"]
            return [Keep(dynamic.dense_factor(scale, factors)) for factors in self._factors]
        place = self._linears[reader.entry.name]
        nested = [densities[place].tolist() for densities in self._densities]
        dense = [row[-1] for row in nested]
        if not self._drops_ties:
            return self._largest(reader, self._counts(reader.numel, nested), dense)
        ranks = [[dynamic.cut_rank(reader.numel, rho) for rho in row] for row in nested]
        return self._above(reader, ranks, dense)

    def _above(
        self, reader: TensorReader, ranks: Sequence[Sequence[int]], dense: Sequence[float]
    ) -> list[Decision]:
        """Rings that hold what is strictly above the entries at some ascending ranks."""
        inner = [[rank for rank in row if 0 <= rank < reader.numel] for row in ranks]
        found = reader.order_statistics(inner) if any(inner) else [[] for _ in inner]
        cuts = []
        for row, wanted, values in zip(ranks, inner, found, strict=True):
            known = {-1: KEEP_ALL, reader.numel: KEEP_NONE}
            for rank, one in zip(wanted, values, strict=True):
                known[rank] = Cut(one.value, 0, one.above)  # strictly above: no tie is kept
            cuts.append([known[rank] for rank in row])
        counted = [magnitude.kept_count(reader.numel, one) for one in dense]
        above = [reader.numel if row[-1].count is None else row[-1].count for row in cuts]
        nested = [counts_of(row, reader.numel) for row in cuts]
        self._tell(reader, dense, counted, list(map(inside_rings, above, nested, self._factors)))
        return [self._rings(reader, index, row) for index, row in enumerate(cuts)]


class LinearConsensus:
    """consensus: sum or mean."""

    passes = 0
    notes: Sequence[str] = ()

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._normalize = recipe.parameters.get("normalize", recipe.consensus == "mean")

    def prepare(self, stream: Stream, pruner: Pruner) -> None:
        """Nothing to measure."""

    def decide(self, reader: TensorReader, decisions: Sequence[Decision]) -> Combination:
        """A sum with the tensor's weights."""
        return Sum(weights_at(self._recipe, reader), self._normalize)


class TiesConsensus:
    """consensus: ties."""

    notes: Sequence[str] = ()

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._model_scope = recipe.parameters["scope"] == "model"
        self._zero_is_positive = True
        self.passes = 1 if self._model_scope else 0

    def prepare(self, stream: Stream, pruner: Pruner) -> None:
        """With scope: model, the sign that exact cancellations elect."""
        if self._model_scope:
            balances = stream.map(
                lambda reader: reader.vote_balance(
                    pruner.decide(reader), weights_at(self._recipe, reader)
                )
            )
            self._zero_is_positive = sum(balances) > 0

    def decide(self, reader: TensorReader, decisions: Sequence[Decision]) -> Combination:
        """An election with the tensor's weights."""
        normalize = self._recipe.parameters["normalize"]
        return Election(weights_at(self._recipe, reader), normalize, self._zero_is_positive)


class PcbConsensus:
    """consensus: pcb."""

    notes: Sequence[str] = ()

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._model_scope = recipe.parameters["scope"] == "model"
        self._variant = recipe.parameters["variant"]
        self._density = recipe.parameters["pcb_density"]
        self._whole: Competition | None = None
        self.passes = 4 if self._model_scope else 0

    def prepare(self, stream: Stream, pruner: Pruner) -> None:
        """With scope: model, the bounds over all merged tensors."""
        if not self._model_scope:
            return

        magnitudes = ModelSweep(stream, lambda r, buckets: r.sweep(buckets, pruner.decide(r)))

        def scores(game: Competition) -> Sweep:
            return ModelSweep(stream, lambda r, b: r.score_sweep(pruner.decide(r), game, b))

        count = model_offsets(stream.family)[1]
        experts = len(stream.family.experts)
        sample = self._sample(stream, pruner, count)
        self._whole = self._measure(
            magnitudes, scores, count, experts, sample, stream.score_histograms
        )
        idle = set(range(experts)) - set(self._whole.active)
        if idle:
            names = ", ".join(stream.family.experts[index].name for index in sorted(idle))
            self.notes = [f"{names}: no change against the base; left out of the competition"]

    @staticmethod
    def _sample(stream: Stream, pruner: Pruner, count: int) -> np.ndarray | None:
        """(E, s) float32: some of the model's deltas, to guess by; None where there is no cheap one
        or deltas are pruned, which may depend on where they stand."""
        if not isinstance(pruner, KeepEverything) or count < _WORTH_GUESSING:
            return None
        stride = max(1, count // _GUESSED) | 1
        found = stream.map(lambda reader: reader.sample(stride))
        samples = [sample for sample in found if sample is not None]
        return np.concatenate(samples, axis=1) if samples else None

    def decide(self, reader: TensorReader, decisions: Sequence[Decision]) -> Combination:
        """The competition of one tensor."""
        game = self._whole or self._measure(
            lambda buckets: reader.sweep(buckets, decisions),
            lambda game: lambda buckets: reader.score_sweep(decisions, game, buckets),
            reader.numel,
            reader.experts,
        )
        return replace(game, weights=weights_at(self._recipe, reader))

    def _measure(
        self,
        magnitudes: Sweep,
        scores: Callable[[Competition], Sweep],
        count: int,
        experts: int,
        sample: np.ndarray | None = None,
        score_histograms: Callable[[np.ndarray, Competition], list[np.ndarray]] | None = None,
    ) -> Competition:
        """Clip bounds from the magnitudes, then thresholds from the scores.

        Args:
            sample: some of the deltas, (E, s); saves a pass each where guesses by it come true.
            score_histograms: of such a sample, see `Stream`.
        """
        nobody = Competition((), self._variant, (), ())
        if count == 0:
            return nobody
        low, high = pcb.clip_ranks(count, pcb.CLIP[self._variant])
        guess = None
        if sample is not None:
            sizes = [upper_histogram(row) for row in np.abs(sample)]
            guess = [buckets_near(row, count, (low, high)) for row in sizes]
        found = statistics(magnitudes, [[low, high, count - 1]] * experts, guess)
        active = tuple(index for index, row in enumerate(found) if row[2].value > 0)
        if not active:
            return nobody
        bounds = tuple(Bounds(found[i][0].value, found[i][1].value) for i in active)
        game = Competition((), self._variant, active, bounds)
        ranks = [pcb.threshold_rank(count, self._density), count - 1]
        guess = None
        if sample is not None and score_histograms is not None:
            sampled = score_histograms(sample, game)
            guess = [buckets_near(row, count, ranks[:1]) for row in sampled]
        ends = statistics(scores(game), [ranks] * len(active), guess)
        complete = tuple(
            replace(bound, threshold=row[0].value, top=row[1].value)
            for bound, row in zip(bounds, ends, strict=True)
        )
        return replace(game, bounds=complete)


def counts_of(cuts: Sequence[Cut], numel: int) -> list[int]:
    """How many entries other than 0 some cuts keep.

    Args:
        numel: entries of the scope; what a cut that keeps everything holds.
    """
    return [numel if cut.count is None else cut.count for cut in cuts]


def _with_changes(numel: int, counts: Sequence[int], changed: int) -> list[int]:
    """As `counts_of`, of cuts that keep so many of the largest entries."""
    return [count if count == numel else min(count, changed) for count in counts]


def inside_rings(
    found: int, nested: Sequence[int], factors: Sequence[float]
) -> tuple[int, int, int]:
    """The last three of Kept: entries inside the last of some nested cuts, those of them that
    differ from the base, and those whose factor is not 0.

    Args:
        found: entries inside the last cut.
        nested: of every cut, see `counts_of`.
    """
    rings = [count - before for before, count in zip([0, *nested], nested, strict=False)]
    kept = sum(count for count, factor in zip(rings, factors, strict=True) if factor)
    return found, nested[-1], kept


def weights_at(recipe: Recipe, reader: TensorReader) -> tuple[float, ...]:
    """The experts' weights for one tensor."""
    return tuple(value_at(source.weight, reader.entry) for source in recipe.sources)


def density_at(source: Source, reader: TensorReader) -> float:
    """One expert's density for one tensor."""
    return value_at(source.density, reader.entry)


def value_at(schedule: Schedule, entry: Entry) -> float:
    """A schedule's value for one tensor, by the depth of the stack that it is in."""
    return schedule.at(entry.name, entry.place.layer, entry.place.depth)


class ModelSweep:
    """Histograms over the whole model, added up tensor by tensor.

    A later sweep passes over tensors whose values all lie below the buckets it asks for: the one
    that looks for the largest value opens a tensor or two.

    Args:
        sweep: the histograms of one tensor, see `selection.statistics.Sweep`.
    """

    def __init__(self, stream: Stream, sweep: Callable[[TensorReader, Buckets], Histograms]):
        self._stream, self._sweep = stream, sweep
        self._highest: dict[str, list[int]] = {}

    def __call__(self, buckets: Buckets) -> Histograms:
        """The histograms of the buckets asked for, see `selection.statistics.Sweep`."""
        merged = self._stream.family.merged
        entries = [entry for entry in merged if self._reaches(entry.name, buckets)]
        self._stream.total -= sum(e.numel for e in merged) - sum(e.numel for e in entries)
        total: Histograms = [{b: empty_histogram() for b in row} for row in buckets]

        def add(reader: TensorReader) -> None:
            found = self._sweep(reader, buckets)
            with self._stream.lock:  # sums of integers: the order does not matter
                for sums, row in zip(total, found, strict=True):
                    for bucket, counts in row.items():
                        sums[bucket] += counts
                if all(UPPER in row for row in found):
                    highest = [int(np.flatnonzero(row[UPPER]).max(initial=0)) for row in found]
                    self._highest[reader.entry.name] = highest

        self._stream.map(add, entries=entries)
        return total

    def _reaches(self, tensor: str, buckets: Buckets) -> bool:
        if tensor not in self._highest:
            return True
        rows = zip(self._highest[tensor], buckets, strict=True)
        return any(bucket <= highest for highest, row in rows for bucket in row)
