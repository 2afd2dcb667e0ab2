"""A recipe resolved for one family from its sketch: densities, cuts, retention. No weights.

An entry is *kept* where the factor on it is not 0. One that equals the base has no change to keep:
it counts as kept only where none is dropped, or where chance draws. Energy is the squared change as
the expert has it, before any factor. Inside a histogram bin, entries are taken to lie evenly in
value; everything else is exact, so a prediction is off by a part of one bin's share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from merging.checkpoints.layout import blocks_of
from merging.declarations import shifts
from merging.declarations.laws import (
    SKIPPING,
    Law,
    dense_factor,
    partition_densities,
    ring_factors,
    rings_between,
)
from merging.declarations.retention import CAUSES
from merging.declarations.schedules import Schedule
from merging.errors import RecipeError
from merging.evidence.outliers import layer_means
from merging.methods import PRUNERS
from merging.recipe import Recipe, Source
from merging.sketches import tails
from merging.sketches.sketch import FamilySketch


@dataclass(frozen=True)
class Plan:
    """What a recipe does to every tensor of every expert. E experts, T tensors, K partitions.

    Attributes:
        density: (E, T, K) float64, nested shares of entries asked for; the last is the total.
        lower: (E, T, K) float64, predicted cuts on |delta|, descending; inf keeps none. For
            random pruning and for tensors that are not pruned, 0.
        entries, l1, l2: (E, T, K) float64, predicted share of the tensor's entries, L1 norm and
            squared L2 norm in each ring, whatever the factor on it.
        gain: (E, T, K) float64, the factor on each ring. A tensor that is not pruned is one ring.
        weight: (E, T) float64, the expert's weight for the tensor.
        pruned: (T,) bool, which tensors are pruned.
        warnings: remarks on the recipe for this family.
        summary: over all pruned tensors (over all, where none is pruned) of the experts whose
            weight is not 0: `asked`, the share of entries that the recipe asks for; `entries`,
            `l1`, `l2`, what is kept; `amplified`, the energy after amplification as a share of the
            energy before pruning; `clash`, the share of what is kept whose sign another kept change
            opposes, and `chance`, the same if signs were drawn, both from `sampled` kept entries.
        clash: (T, 2) float64, of every tensor how many of the sampled entries are kept (by one
            expert or another, as is likely), and how many of these another kept change opposes.
        causes: why `entries` is not `asked`, by the names of CAUSES: what each adds, in shares of
            entries; they sum up to the difference.
        worst_layer: the layer that keeps the least energy and the share that it keeps; None
            without layers.
    """

    recipe: Recipe
    density: np.ndarray = field(repr=False)
    lower: np.ndarray = field(repr=False)
    entries: np.ndarray = field(repr=False)
    l1: np.ndarray = field(repr=False)
    l2: np.ndarray = field(repr=False)
    gain: np.ndarray = field(repr=False)
    weight: np.ndarray = field(repr=False)
    pruned: np.ndarray = field(repr=False)
    warnings: tuple[str, ...]
    summary: Mapping[str, float]
    clash: np.ndarray = field(repr=False)
    causes: Mapping[str, float]
    worst_layer: tuple[int | str, float] | None

    def retention(self, measure: str) -> np.ndarray:
        """(E, T) float64: share of every tensor's `entries`, `l1` or `l2` that is kept."""
        return (getattr(self, measure) * (self.gain != 0)).sum(axis=2)


def plan(recipe: Recipe, sketch: FamilySketch) -> Plan:
    """Predicts what `recipe` keeps of the sketched family.

    The recipe's sources are matched to the sketch's experts by position.

    Raises:
        RecipeError: the recipe has another number of experts than the sketch, or a density that
            changes along the model where one cut is made over all of it.
    """
    if len(recipe.sources) > len(sketch.experts):  # a base that is one model of many has no change
        others = tuple(source for source in recipe.sources if source.model != recipe.base)
        recipe = replace(recipe, sources=others)
    if len(recipe.sources) != len(sketch.experts):
        raise RecipeError(
            f"the recipe has {len(recipe.sources)} experts, the sketch {len(sketch.experts)}"
        )
    law = law_of(recipe)
    pruned = np.array(
        [law.order != "all" and (t.is_linear or not law.linears) for t in sketch.tensors], bool
    )
    asked = densities_asked(recipe, sketch)
    asked = np.where(pruned, asked, 1.0)
    density, warnings = _densities(recipe, sketch, asked, pruned)
    counts = _counts(recipe, sketch, density, pruned)
    tail = _tail(recipe, sketch, density, counts)
    entries, l1, l2 = (
        np.diff(nested, axis=2, prepend=0.0) for nested in (tail.entries, tail.l1, tail.l2)
    )
    gain = _gain(recipe, pruned, entries.shape)
    weight = _along(sketch, [source.weight for source in recipe.sources])
    made = Plan(
        recipe,
        density,
        tail.lower,
        entries,
        l1,
        l2,
        gain,
        weight,
        pruned,
        tuple(warnings),
        {},
        np.zeros((len(pruned), 2)),
        {},
        None,
    )
    summary = _summary(made, sketch, asked)
    opposed, clash = _clash(made, sketch, tail.equal)
    return replace(
        made,
        summary=summary | opposed,
        clash=clash,
        causes=_causes(made, sketch, asked, counts),
        worst_layer=_worst_layer(made, sketch),
    )


def densities_asked(recipe: Recipe, sketch: FamilySketch) -> np.ndarray:
    """(E, T) float64: the share of every tensor of every expert that a recipe asks to keep."""
    return _along(sketch, [source.density for source in recipe.sources])


def law_of(recipe: Recipe) -> Law:
    """What a recipe's pruner does to magnitudes."""
    return PRUNERS[recipe.prune].law


def _along(sketch: FamilySketch, schedules: Sequence[Schedule]) -> np.ndarray:
    """(E, T): the value of each expert's schedule for each tensor."""
    rows = [
        [schedule.at(t.name, t.layer, t.depth) for t in sketch.tensors]
        if schedule.constant is None
        else [schedule.constant] * len(sketch.tensors)
        for schedule in schedules
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(sketch.tensors))


def _densities(
    recipe: Recipe, sketch: FamilySketch, asked: np.ndarray, pruned: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """(E, T, K) nested densities, and warnings. Experts with fewer partitions repeat the last.

    Args:
        asked: (E, T) densities of the recipe.
    """
    skip = law_of(recipe).skip
    skipped = _along(sketch, [source.values[skip] for source in recipe.sources]) if skip else asked
    n_rings = len(SKIPPING) if skip else recipe.partitions
    result = np.ones((*asked.shape, n_rings))
    clipped = 0
    shifted = "density_shift" in recipe.parameters
    for row, source in enumerate(recipe.sources):
        if skip:
            pairs = zip(asked[row].tolist(), skipped[row].tolist(), strict=True)
            nested = np.array([rings_between(density, first) for density, first in pairs])
        else:
            count = len(source.amplification)
            nested = np.array([partition_densities(d, count) for d in asked[row].tolist()])
        for k in range(n_rings):
            values = nested[:, min(k, nested.shape[1] - 1)]
            if shifted:
                values, outside = _shifted(recipe, sketch, row, values, pruned)
                clipped += outside
            result[row, :, k] = np.where(pruned, np.clip(values, 0.0, 1.0), 1.0)
    warnings = []
    if shifted and not _counted(recipe, sketch):
        warnings.append(
            f"Densities are estimates: outliers were counted at {sketch.layer_outlier:g} and "
            f"{sketch.linear_outlier:g} means"
        )
    if clipped:
        warnings.append(
            f"Density shift would take {clipped} densities below 0 or above 1; they end there, so "
            "the share kept may differ from the one asked for"
        )
    return result, warnings


def _counted(recipe: Recipe, sketch: FamilySketch) -> bool:
    """True where the scan counted outliers at the recipe's multiples."""
    asked = (recipe.parameters["layer_outlier"], recipe.parameters["linear_outlier"])
    return asked == (sketch.layer_outlier, sketch.linear_outlier)


def _shifted(
    recipe: Recipe, sketch: FamilySketch, row: int, asked: np.ndarray, pruned: np.ndarray
) -> tuple[np.ndarray, int]:
    """(T,) densities moved by the outliers, and how many are cut off below 0 or above 1."""
    values = recipe.parameters
    layer, linear = offsets(sketch, row, values["layer_outlier"], values["linear_outlier"])
    if drops_ties(recipe):
        moved = shifts.densities(asked, values["density_shift"], layer, linear)
        return moved, int(((moved < 0) | (moved > 1))[pruned].sum())
    moved = asked + values["density_shift"] * (layer + linear)
    numel = sketch.numel[pruned].astype(np.float64)
    moved[pruned] = shifts.fitted(moved[pruned], numel, asked[pruned])
    return moved, 0


def offsets(
    sketch: FamilySketch,
    row: int,
    layer_outlier: float | None = None,
    linear_outlier: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Layer and linear offsets of expert `row`, each (T,) float64; 0 for tensors not pruned.

    Outliers at the multiples that the scan counted (the default) are exact; at others they are
    read off the fine histograms.
    """
    linear = np.array([tensor.is_linear for tensor in sketch.tensors], dtype=bool)
    layers = blocks_of([t.name for t in sketch.tensors if t.is_linear])
    numel = sketch.numel[linear].astype(np.float64)
    norms = sketch.l1[row, linear].sum(axis=1)
    layer_counts = sketch.layer_outliers[row, linear]
    linear_counts = sketch.linear_outliers[row, linear]
    if layer_outlier not in (None, sketch.layer_outlier):
        bounds = layer_outlier * layer_means(layers, numel, norms[None])[0]
        layer_counts = tails.count_above(sketch, row, linear, bounds)
    if linear_outlier not in (None, sketch.linear_outlier):
        bounds = linear_outlier * norms / np.maximum(numel, 1.0)
        linear_counts = tails.count_above(sketch, row, linear, bounds)
    a, b = np.zeros(len(sketch.tensors)), np.zeros(len(sketch.tensors))
    a[linear], b[linear] = shifts.offsets(layers, numel, layer_counts, linear_counts)
    return a, b


def drops_ties(recipe: Recipe) -> bool:
    """True where changes equal to the cut are dropped, so that fewer stay than are asked for."""
    return recipe.parameters.get("tie_rule") == "drop"


def _counts(
    recipe: Recipe, sketch: FamilySketch, density: np.ndarray, pruned: np.ndarray
) -> np.ndarray:
    """How many entries are to be kept, nested over K: (E, T, K) float64, or (E, K) where one cut is
    made over the model."""
    if _whole_model(recipe):
        if any(source.density.constant is None for source in recipe.sources):
            raise RecipeError("scope: model needs one density for the whole model")
        return _kept_counts(density[:, 0], float(sketch.numel.sum()))
    numel = sketch.numel[None, :, None].astype(np.float64)
    if law_of(recipe).order == "random":
        return density * numel
    if drops_ties(recipe):
        keep = np.maximum(numel - np.floor(numel * (1.0 - density)) - 1.0, 0.0)
        keep = np.where(density >= 1.0, numel, np.where(density <= 0.0, 0.0, keep))
    else:
        keep = _kept_counts(density, numel)
    return np.where(pruned[None, :, None], keep, numel)


def _kept_counts(density: np.ndarray, numel: np.ndarray | float) -> np.ndarray:
    """`laws.kept_count` of arrays."""
    return np.minimum(np.maximum(np.floor(density * numel), density > 0), numel)


def _whole_model(recipe: Recipe) -> bool:
    return law_of(recipe).order == "largest" and recipe.parameters.get("scope") == "model"


def _tail(
    recipe: Recipe, sketch: FamilySketch, density: np.ndarray, counts: np.ndarray
) -> tails.Tail:
    if law_of(recipe).order != "largest":
        return tails.Tail(np.zeros_like(density), np.ones_like(density), density, density, density)
    if _whole_model(recipe):
        return tails.keep_largest_of_model(sketch, counts, strict=drops_ties(recipe))
    return tails.keep_largest(sketch, counts, strict=drops_ties(recipe))


def _gain(recipe: Recipe, pruned: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(E, T, K): the factor on every ring, and on what is not pruned."""
    gain = np.ones(shape)
    if law_of(recipe).order != "largest":
        return gain
    for row, source in enumerate(recipe.sources):
        factors = _factors(recipe, source)
        gain[row, :, : len(factors)] = factors
        gain[row, ~pruned] = dense_factor(recipe.parameters.get("scale_dense", "one"), factors)
    return gain


def _factors(recipe: Recipe, source: Source) -> Sequence[float]:
    """The factor on every ring of one expert."""
    if law_of(recipe).skip:
        return SKIPPING
    return ring_factors(source.amplification, recipe.parameters.get("partition_mode", "ring"))


def _chosen(made: Plan) -> np.ndarray:
    """(E, T) bool: what a summary is over."""
    tensors = made.pruned if made.pruned.any() else np.ones_like(made.pruned)
    return tensors & (made.weight != 0)


def _summary(made: Plan, sketch: FamilySketch, asked: np.ndarray) -> dict[str, float]:
    chosen = _chosen(made)
    sizes = {
        "entries": np.broadcast_to(sketch.numel.astype(np.float64), sketch.zeros.shape),
        "l1": sketch.l1.sum(axis=2),
        "l2": sketch.l2.sum(axis=2),
    }
    amplified = (made.l2 * made.gain**2).sum(axis=2)
    shares = {name: (made.retention(name), sizes[name]) for name in sizes}
    shares |= {"asked": (asked, sizes["entries"]), "amplified": (amplified, sizes["l2"])}
    result = {}
    for name, (share, size) in shares.items():
        total = size[chosen].sum()
        result[name] = float((share * size)[chosen].sum() / total) if total else 0.0
    return result


def _causes(
    made: Plan, sketch: FamilySketch, asked: np.ndarray, counts: np.ndarray
) -> dict[str, float]:
    """What leads from the share asked for to the share kept, step by step."""
    chosen = _chosen(made)
    numel = np.broadcast_to(sketch.numel.astype(np.float64), chosen.shape)
    total = numel[chosen].sum()
    if not total:
        return dict.fromkeys(CAUSES, 0.0)
    # what is skipped before the first ring that is kept was never asked for
    first = 1 if law_of(made.recipe).skip else 0
    density = made.density[..., -1] - (made.density[..., 0] if first else 0.0)
    inside = made.entries[..., first:].sum(axis=2) * numel
    changed = numel - sketch.zeros
    if first:
        counts = counts[..., 1:] - counts[..., :1]
        changed = np.maximum(changed - made.entries[..., 0] * numel, 0.0)
    if counts.ndim == 2:  # one cut over the model: no tensor is asked for a number of its own
        chosen_experts = chosen.any(axis=1)
        keep, changed = counts[chosen_experts, -1], changed[chosen_experts].sum(axis=1)
        whole = keep >= sketch.numel.sum()
    else:
        keep, changed = counts[..., -1][chosen], changed[chosen]
        whole = (keep >= numel[chosen]) | (law_of(made.recipe).order == "random")
    lacking = np.where(whole, 0.0, np.maximum(keep - changed, 0.0)).sum()
    steps = [
        (asked * numel)[chosen].sum(),
        (density * numel)[chosen].sum(),
        keep.sum(),
        inside[chosen].sum() + lacking,
        inside[chosen].sum(),
        (made.retention("entries") * numel)[chosen].sum(),
    ]
    return {
        name: float((after - before) / total)
        for name, before, after in zip(CAUSES, steps, steps[1:], strict=False)
    }


def _clash(
    made: Plan, sketch: FamilySketch, equal: np.ndarray
) -> tuple[dict[str, float], np.ndarray]:
    """`clash` and `chance` of the summary, and the former by tensor, from the sample.

    Args:
        equal: (E, T, K), share kept of the entries that equal a cut.
    """
    tensor = sketch.sample_tensor
    chosen = _chosen(made)
    weights = np.take(np.sign(made.weight).astype(np.int8), tensor, axis=1)
    signs = np.sign(sketch.sample).astype(np.int8) * weights
    chances = _retention_of_sample(made, sketch, equal)
    chances *= np.take(chosen, tensor, axis=1)
    chances *= signs != 0
    rows = range(len(signs))
    whole = math.prod((1.0 - 0.5 * chances[row] for row in rows), start=np.ones(signs.shape[1]))
    by_chance = 0.0
    opposed = np.zeros(signs.shape[1])
    for row in rows:
        free = np.ones(signs.shape[1])
        for other in rows:
            if other != row:  # of what is kept no sign is 0
                free *= 1.0 - chances[other] * (signs[row] != signs[other])
        opposed += chances[row] * (1.0 - free)
        by_chance += float((chances[row] * (1.0 - whole / (1.0 - 0.5 * chances[row]))).sum())
    total = float(chances.sum())
    shares = {"clash": float(opposed.sum()), "chance": by_chance}
    summary = {name: part / total if total else 0.0 for name, part in shares.items()}
    by_tensor = [
        np.bincount(tensor, values, len(sketch.tensors))
        for values in (chances.sum(axis=0), opposed)
    ]
    return summary | {"sampled": total}, np.stack(by_tensor, axis=1)


def _retention_of_sample(made: Plan, sketch: FamilySketch, equal: np.ndarray) -> np.ndarray:
    """(E, S): how likely each sampled change is kept."""
    tensor = sketch.sample_tensor
    order = law_of(made.recipe).order
    if order == "all":
        return np.ones(sketch.sample.shape)
    if order == "random":
        return np.take(made.density[:, :, -1], tensor, axis=1)
    magnitudes = np.abs(sketch.sample.astype(np.float64))
    chances, before = np.zeros(magnitudes.shape), np.zeros(magnitudes.shape)
    rings = range(made.lower.shape[2])
    for k in rings if (made.gain == 0).any() else rings[-1:]:  # else all up to the last are kept
        lower, partly = (np.take(one[:, :, k], tensor, axis=1) for one in (made.lower, equal))
        inside = np.where(magnitudes == lower, partly, magnitudes > lower)
        inside = np.maximum(inside, before)
        chances += np.take(made.gain[:, :, k] != 0, tensor, axis=1) * (inside - before)
        before = inside
    return chances


def _worst_layer(made: Plan, sketch: FamilySketch) -> tuple[int | str, float] | None:
    titles = [tensor.title for tensor in sketch.tensors]
    energy = sketch.l2.sum(axis=2) * _chosen(made)
    retention = made.retention("l2") * energy
    shares = {}
    for layer in dict.fromkeys(title for title in titles if title is not None):
        inside = made.pruned & np.array([title == layer for title in titles])
        if total := energy[:, inside].sum():
            shares[layer] = float(retention[:, inside].sum() / total)
    if not shares:
        return None
    worst = min(shares, key=lambda layer: shares[layer])
    return worst, shares[worst]


__all__ = ["CAUSES", "Plan", "densities_asked", "drops_ties", "offsets", "plan"]
