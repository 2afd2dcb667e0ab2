"""A recipe resolved for one family from its sketch: densities, cuts, retention. No weights.

Inside a histogram bin, entries are taken to lie evenly in value; everything else is exact, so a
prediction is off by a part of one bin's share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from merging.errors import RecipeError
from merging.methods import magnitude
from merging.outliers import expert_offsets
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
    worst_layer: int | None


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
    n_layers = 1 + max((tensor.layer or 0 for tensor in sketch.tensors), default=0)
    result = np.ones((len(sketch.experts), len(sketch.tensors), n_partitions))
    if recipe.prune == "none":
        return result, []
    clipped = 0
    for row, source in enumerate(recipe.sources):
        total = np.array(
            [source.density.at(t.name, t.layer, n_layers) for t in sketch.tensors]
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
    if clipped:
        warning = (
            f"density_shift moves {clipped} densities outside 0 to 1; they are clipped, so the "
            "share kept differs from the density asked for"
        )
        return result, [warning]
    return result, []


def _dynamic(
    recipe: Recipe, sketch: FamilySketch, row: int, total: np.ndarray, pruned: np.ndarray
) -> np.ndarray:
    layer, linear = offsets(sketch, row)
    sparsity = np.round(1.0 - total, 12)
    return (1.0 - sparsity) + recipe.parameters["density_shift"] * (layer + linear)


def offsets(sketch: FamilySketch, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Layer and linear offsets of expert `row`, each (T,) float64; 0 for tensors not pruned."""
    linear = np.array([tensor.is_linear for tensor in sketch.tensors], dtype=bool)
    layers = np.array([t.layer for t in sketch.tensors if t.is_linear])
    a, b = np.zeros(len(sketch.tensors)), np.zeros(len(sketch.tensors))
    a[linear], b[linear] = expert_offsets(
        layers,
        sketch.numel[linear].astype(np.float64),
        sketch.layer_outliers[row, linear],
        sketch.linear_outliers[row, linear],
    )
    return a, b


def _without_cuts(
    density: np.ndarray, sketch: FamilySketch
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return np.zeros_like(density), (density, density, density)


def _with_cuts(
    recipe: Recipe, sketch: FamilySketch, density: np.ndarray, pruned: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    numel = sketch.numel[None, :, None].astype(np.float64)
    if recipe.prune == "dynamic":
        keep = np.maximum(numel - np.floor(numel * (1.0 - density)) - 1.0, 0.0)
        keep = np.where(density >= 1.0, numel, np.where(density <= 0.0, 0.0, keep))
    else:
        keep = np.floor(density * numel)
    keep = np.where(pruned[None, :, None], keep, numel)
    if recipe.prune == "magnitude" and recipe.parameters["scope"] == "model":
        lower = _model_cuts(sketch, density)
        return lower, _above(sketch, lower)
    return _keep_largest(sketch, keep)


def _tail(values: np.ndarray) -> np.ndarray:
    """Sums from each bin to the top: (..., B + 1), the last 0."""
    total = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    total[..., :-1] = np.cumsum(values[..., ::-1], axis=-1)[..., ::-1]
    return total


def _keep_largest(
    sketch: FamilySketch, keep: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cuts that keep the `keep` (E, T, K) largest entries, and the cumulative shares kept."""
    counts = _tail(sketch.counts)  # (E, T, B + 1)
    changed = counts[..., 0][..., None]
    wanted = np.minimum(keep, changed)
    lower = np.empty_like(keep)
    bins = np.empty(keep.shape, dtype=np.int64)
    for k in range(keep.shape[2]):
        reach = (counts >= np.maximum(wanted[..., k], 1e-9)[..., None]).sum(axis=-1) - 1
        bins[..., k] = np.clip(reach, 0, sketch.counts.shape[2] - 1)
    inside = np.take_along_axis(sketch.counts, bins, axis=2)
    beyond = np.take_along_axis(counts, bins + 1, axis=2)
    need = np.clip(wanted - beyond, 0.0, inside)
    low, high = _bin_span(sketch, bins)
    share = np.divide(need, inside, out=np.zeros_like(need), where=inside > 0)
    lower = high - share * (high - low)
    numel = np.maximum(sketch.numel, 1)[None, :, None]
    cumulative = [np.minimum(keep, beyond + need) / numel]
    for values, power in ((sketch.l1, 1), (sketch.l2, 2)):
        tail = _tail(values)
        part = share * _mean_power(lower, high, power) / _mean_power(low, high, power)
        kept = np.take_along_axis(tail, bins + 1, axis=2) + part * np.take_along_axis(
            values, bins, axis=2
        )
        total = tail[..., 0][..., None]
        cumulative.append(np.divide(kept, total, out=np.ones_like(kept), where=total > 0))
    everything = keep >= sketch.numel[None, :, None]
    nothing = keep <= 0
    lower = np.where(everything, 0.0, np.where(nothing, np.inf, lower))
    cumulative = [np.where(everything, 1.0, np.where(nothing, 0.0, c)) for c in cumulative]
    return lower, (cumulative[0], cumulative[1], cumulative[2])


def _mean_power(low: np.ndarray, high: np.ndarray, power: int) -> np.ndarray:
    """Mean of x**power for x even in [low, high], power 1 or 2."""
    mean = (low + high) / 2 if power == 1 else (low * low + low * high + high * high) / 3
    return np.maximum(mean, 1e-300)


def _bin_span(sketch: FamilySketch, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges of each bin, the upper one not above the tensor's largest |delta|."""
    edges = sketch.edges
    low, high = edges[bins], edges[bins + 1]
    top = sketch.max_abs[..., None]
    return low, np.where((top > low) & (top < high), top, high)


def _model_cuts(sketch: FamilySketch, density: np.ndarray) -> np.ndarray:
    """(E, T, K): one cut per expert and partition over all tensors pooled."""
    counts = _tail(sketch.counts.sum(axis=1))  # (E, B + 1)
    total = sketch.numel.sum()
    lower = np.empty_like(density)
    edges = sketch.edges
    for row in range(density.shape[0]):
        for k in range(density.shape[2]):
            keep = np.floor(density[row, 0, k] * total)
            if keep >= total or keep <= 0:
                lower[row, :, k] = 0.0 if keep > 0 else np.inf
                continue
            b = int(np.clip((counts[row] >= keep).sum() - 1, 0, len(edges) - 2))
            inside = counts[row, b] - counts[row, b + 1]
            share = min((keep - counts[row, b + 1]) / inside, 1.0) if inside else 0.0
            lower[row, :, k] = edges[b + 1] - share * (edges[b + 1] - edges[b])
    return lower


def _above(sketch: FamilySketch, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cumulative shares of entries, L1 and L2 above given cuts (E, T, K)."""
    edges = sketch.edges
    bins = np.clip(np.searchsorted(edges, lower, side="right") - 1, 0, len(edges) - 2)
    low, high = _bin_span(sketch, bins)
    cut = np.clip(np.where(np.isfinite(lower), lower, high), low, high)
    share = np.divide(high - cut, high - low, out=np.zeros_like(cut), where=high > low)
    shares = []
    for values, power in ((sketch.counts, 0), (sketch.l1, 1), (sketch.l2, 2)):
        tail = _tail(values)
        weight = share
        if power:
            weight = share * _mean_power(cut, high, power) / _mean_power(low, high, power)
        kept = np.take_along_axis(tail, bins + 1, axis=2) + weight * np.take_along_axis(
            values, bins, axis=2
        )
        total = tail[..., 0][..., None] if power else np.maximum(sketch.numel, 1)[None, :, None]
        result = np.divide(kept, total, out=np.ones_like(kept), where=total > 0)
        shares.append(np.where(lower <= 0, 1.0, np.where(np.isinf(lower), 0.0, result)))
    return shares[0], shares[1], shares[2]


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


def _worst_layer(sketch: FamilySketch, pruned: np.ndarray, l2: np.ndarray) -> int | None:
    layers = np.array([-1 if t.layer is None else t.layer for t in sketch.tensors])
    energy = sketch.l2.sum(axis=2)
    kept = l2.sum(axis=2) * energy
    shares = {}
    for layer in np.unique(layers[pruned & (layers >= 0)]):
        inside = pruned & (layers == layer)
        total = energy[:, inside].sum()
        shares[int(layer)] = kept[:, inside].sum() / total if total else 1.0
    return min(shares, key=lambda layer: shares[layer]) if shares else None


__all__ = ["Plan", "offsets", "plan"]
