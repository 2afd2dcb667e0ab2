"""A recipe resolved for one family from its sketch: densities, cuts, retention. No weights.

Inside a histogram bin, entries are taken to lie evenly in value; everything else is exact, so a
prediction is off by a part of one bin's share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from merging import tails
from merging.checkpoints.layout import blocks_of
from merging.errors import RecipeError
from merging.methods import magnitude
from merging.outliers import expert_offsets, layer_means
from merging.recipe import Recipe
from merging.sketch import FamilySketch


@dataclass(frozen=True)
class Plan:
    """What a recipe does to every tensor of every expert. E experts, T tensors, K partitions.

    Attributes:
        density: (E, T, K) float64, nested shares of entries asked for; the last is the total.
        lower: (E, T, K) float64, predicted cuts on |delta|, descending; inf keeps none. For
            random pruning and for tensors that are not pruned, 0.
        entries, l1, l2: (E, T, K) float64, predicted share of the tensor's entries, L1 norm and
            squared L2 norm in each ring; the sum over K is the retention.
        factors: per expert, the factor on each ring.
        pruned: (T,) bool, which tensors are pruned.
        warnings: remarks on the recipe for this family.
        summary: entries, l1, l2 (over all pruned tensors of all experts), clash (share of what
            is kept whose sign another kept change opposes, estimated from the sketch's sample).
        worst_layer: the layer that keeps the least L2, None without layers.
    """

    recipe: Recipe
    density: np.ndarray = field(repr=False)
    lower: np.ndarray = field(repr=False)
    entries: np.ndarray = field(repr=False)
    l1: np.ndarray = field(repr=False)
    l2: np.ndarray = field(repr=False)
    factors: list[list[float]]
    pruned: np.ndarray = field(repr=False)
    warnings: tuple[str, ...]
    summary: Mapping[str, float]
    worst_layer: int | str | None


def plan(recipe: Recipe, sketch: FamilySketch) -> Plan:
    """Predicts what `recipe` keeps of the sketched family.

    The recipe's sources are matched to the sketch's experts by position.

    Raises:
        RecipeError: the recipe has another number of experts than the sketch.
    """
    if len(recipe.sources) != len(sketch.experts):
        raise RecipeError(
            f"the recipe has {len(recipe.sources)} experts, the sketch {len(sketch.experts)}"
        )
    n_partitions = recipe.partitions
    pruned = _pruned_tensors(recipe, sketch)
    density, warnings = _densities(recipe, sketch, pruned, n_partitions)
    if recipe.prune in ("none", "random"):
        lower, cumulative = _without_cuts(density, sketch)
    else:
        lower, cumulative = _with_cuts(recipe, sketch, density, pruned)
    entries, l1, l2 = (np.diff(values, axis=2, prepend=0.0) for values in cumulative)
    mode = recipe.parameters.get("partition_mode", "ring")
    factors = [magnitude.ring_factors(source.amplification, mode) for source in recipe.sources]
    summary = _summary(sketch, pruned, entries, l1, l2)
    summary["clash"] = _clash(recipe, sketch, density, lower, pruned)
    return Plan(
        recipe, density, lower, entries, l1, l2, factors, pruned, tuple(warnings), summary,
        _worst_layer(sketch, pruned, l2),
    )  # fmt: skip


def _pruned_tensors(recipe: Recipe, sketch: FamilySketch) -> np.ndarray:
    if recipe.prune == "none":
        return np.zeros(len(sketch.tensors), dtype=bool)
    if recipe.prune == "dynamic":
        return np.array([tensor.is_linear for tensor in sketch.tensors], dtype=bool)
    return np.ones(len(sketch.tensors), dtype=bool)


def _densities(
    recipe: Recipe, sketch: FamilySketch, pruned: np.ndarray, n_partitions: int
) -> tuple[np.ndarray, list[str]]:
    """(E, T, K) nested densities, and warnings. Experts with fewer partitions repeat the last."""
    result = np.ones((len(sketch.experts), len(sketch.tensors), n_partitions))
    if recipe.prune == "none":
        return result, []
    clipped = 0
    for row, source in enumerate(recipe.sources):
        total = np.array(
            [source.density.at(t.name, t.layer, t.depth) for t in sketch.tensors]
            if source.density.constant is None
            else [source.density.constant] * len(sketch.tensors)
        )
        count = len(source.amplification)
        shares = [(k + 1) / count for k in range(count)] + [1.0] * (n_partitions - count)
        for k, share in enumerate(shares):
            values = total if share == 1.0 else total * share
            if recipe.prune == "dynamic":
                values = _dynamic(recipe, sketch, row, values, pruned)
                outside = (values < 0) | (values > 1)
                clipped += int(outside[pruned].sum())
            result[row, :, k] = np.where(pruned, np.clip(values, 0.0, 1.0), 1.0)
    warnings = []
    if recipe.prune == "dynamic" and not _counted(recipe, sketch):
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


def _dynamic(
    recipe: Recipe, sketch: FamilySketch, row: int, total: np.ndarray, pruned: np.ndarray
) -> np.ndarray:
    values = recipe.parameters
    layer, linear = offsets(sketch, row, values["layer_outlier"], values["linear_outlier"])
    sparsity = np.round(1.0 - total, 12)
    return (1.0 - sparsity) + recipe.parameters["density_shift"] * (layer + linear)


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
    a[linear], b[linear] = expert_offsets(layers, numel, layer_counts, linear_counts)
    return a, b


def _without_cuts(density: np.ndarray, sketch: FamilySketch) -> tuple[np.ndarray, tails.Shares]:
    return np.zeros_like(density), (density, density, density)


def _with_cuts(
    recipe: Recipe, sketch: FamilySketch, density: np.ndarray, pruned: np.ndarray
) -> tuple[np.ndarray, tails.Shares]:
    numel = sketch.numel[None, :, None].astype(np.float64)
    if recipe.prune == "dynamic":
        keep = np.maximum(numel - np.floor(numel * (1.0 - density)) - 1.0, 0.0)
        keep = np.where(density >= 1.0, numel, np.where(density <= 0.0, 0.0, keep))
    else:
        keep = np.minimum(np.maximum(np.floor(density * numel), density > 0), numel)
    keep = np.where(pruned[None, :, None], keep, numel)
    if recipe.prune == "magnitude" and recipe.parameters["scope"] == "model":
        total = np.floor(density[:, 0] * sketch.numel.sum())
        return tails.keep_largest_of_model(sketch, total)
    return tails.keep_largest(sketch, keep, strict=recipe.prune == "dynamic")


def _summary(sketch: FamilySketch, pruned: np.ndarray, *cumulated: np.ndarray) -> dict[str, float]:
    """Shares over all pruned tensors of all experts; over everything if none is pruned."""
    chosen = pruned if pruned.any() else np.ones_like(pruned)
    weights = (
        np.broadcast_to(sketch.numel.astype(np.float64), sketch.zeros.shape),
        sketch.l1.sum(axis=2),
        sketch.l2.sum(axis=2),
    )
    result = {}
    for name, rings, weight in zip(("entries", "l1", "l2"), cumulated, weights, strict=True):
        total = weight[:, chosen].sum()
        kept = (rings.sum(axis=2) * weight)[:, chosen].sum()
        result[name] = float(kept / total) if total else 1.0
    return result


def _clash(
    recipe: Recipe,
    sketch: FamilySketch,
    density: np.ndarray,
    lower: np.ndarray,
    pruned: np.ndarray,
) -> float:
    """Share of kept changes that meet a kept change of the other sign, from the sample."""
    values, tensor = sketch.sample, sketch.sample_tensor
    chosen = pruned[tensor] if pruned.any() else slice(None)
    values, tensor = values[:, chosen], tensor[chosen]
    if recipe.prune == "random":
        kept = np.where(values != 0, density[:, tensor, -1], 0.0)
    else:
        kept = ((np.abs(values) >= lower[:, tensor, -1]) & (values != 0)).astype(np.float64)
    opposed = 0.0
    for row in range(values.shape[0]):
        free = np.ones(values.shape[1])
        for other in range(values.shape[0]):
            if other != row:
                free *= 1.0 - kept[other] * (values[row] * values[other] < 0)
        opposed += float((kept[row] * (1.0 - free)).sum())
    total = float(kept.sum())
    return opposed / total if total else 0.0


def _worst_layer(sketch: FamilySketch, pruned: np.ndarray, l2: np.ndarray) -> int | str | None:
    titles = [tensor.title for tensor in sketch.tensors]
    energy = sketch.l2.sum(axis=2)
    kept = l2.sum(axis=2) * energy
    shares = {}
    for layer in dict.fromkeys(title for title in titles if title is not None):
        inside = pruned & np.array([title == layer for title in titles])
        if not inside.any():
            continue
        total = energy[:, inside].sum()
        shares[layer] = kept[:, inside].sum() / total if total else 1.0
    return min(shares, key=lambda layer: shares[layer]) if shares else None


__all__ = ["Plan", "offsets", "plan"]
