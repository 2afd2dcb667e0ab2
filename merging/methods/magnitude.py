"""Magnitude pruning and partition amplification: keep the largest changes, scale them by rank.

Source: trimming as in TIES-Merging (arXiv 2306.01708, section 4.1) and partitions as in DPPA
(arXiv 2403.02799, step 2), generalised to K partitions. Per tensor by default, over the whole
model with `scope: model`. Tie rule: exactly int(density * n) entries are kept (one at least
where the density is above 0), largest |delta| first; of equal magnitudes the cut keeps some, spread
over the tensor (`selection.tied`). mergekit keeps the same number, equal magnitudes in no stated
order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from merging.checkpoints import Entry
from merging.declarations.knobs import (
    AMPLIFICATION,
    DENSITY,
    PARTITION_MODE,
    RESCALE,
    SCOPE,
)
from merging.declarations.laws import Law, kept_count, partition_densities, ring_factors
from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import Evidence, Preset, Pruned, Pruner
from merging.declarations.retention import Retention, counts_of, inside_rings, with_changes
from merging.declarations.values import Recipe
from merging.errors import RecipeError
from merging.evidence.norms import l1_ratio
from merging.evidence.whole_model import model_cuts, model_offsets
from merging.instructions import Decision, Keep, Ranks, Rings
from merging.selection.statistics import largest_cuts
from merging.selection.tied import KEEP_ALL, Cut

Keeps = tuple[tuple[int, ...], ...]
"""Per expert, how many entries its nested partitions hold."""
Factors = tuple[tuple[float, ...], ...]
"""Per expert, the factor on each of its rings."""


def factors_of(recipe: Recipe) -> Factors:
    """The factor on every ring of every expert."""
    amplifications = tuple(source.amplification for source in recipe.sources)
    return _factors(amplifications, recipe.parameters["partition_mode"])


@functools.lru_cache(maxsize=1024)
def _factors(amplifications: Factors, mode: str) -> Factors:
    return tuple(tuple(ring_factors(one, mode)) for one in amplifications)


def decide(recipe: Recipe, reader: Reader, evidence: Cuts | None) -> Pruned:
    """Cuts that keep exactly int(density * n) entries of the tensor, or the model's cuts."""
    factors = factors_of(recipe)
    if evidence is not None:
        first, rows = evidence[0][reader.entry.name], enumerate(evidence[1])
        return Pruned([rings(recipe, reader, i, cuts, factors, first) for i, cuts in rows])
    dense = recipe.of_all("density", reader.entry)
    keeps = _keeps(reader.numel, dense, tuple(map(len, factors)))
    return largest(recipe, reader, keeps, dense, factors)


@functools.lru_cache(maxsize=1024)
def _keeps(numel: int, dense: tuple[float, ...], partitions: tuple[int, ...]) -> Keeps:
    """Tensors of one size share them."""
    return tuple(
        tuple(kept_count(numel, one) for one in partition_densities(density, count))
        for density, count in zip(dense, partitions, strict=True)
    )


@functools.lru_cache(maxsize=1024)
def _ranks(keeps: Keeps, factors: Factors) -> tuple[Ranks, ...]:
    """Tensors that keep as many share them."""
    return tuple(map(Ranks, keeps, factors))


def largest(
    recipe: Recipe, reader: Reader, keeps: Keeps, dense: Sequence[float], factors: Factors
) -> Pruned:
    """Rings that hold exactly so many of the largest entries.

    Args:
        dense: per expert, the density that led to them.
    """
    if reader.numel == 0:
        return Pruned([Keep()] * reader.experts)

    def retention_of(reader: Reader, nested: Sequence[Sequence[int]]) -> list[Retention]:
        counted = [row[-1] for row in keeps]
        inside = list(map(inside_rings, counted, nested, factors))
        return retention(recipe, reader, dense, counted, inside)

    if reader.finds_cuts and not _rescales(recipe, reader):

        def count(reader: Reader) -> list[Retention]:
            pairs = zip(keeps, reader.changed(), strict=True)
            return retention_of(reader, [with_changes(reader.numel, *row) for row in pairs])

        return Pruned(_ranks(keeps, factors), count)
    cuts = largest_cuts(reader.order_statistics, reader.stops, reader.numel, keeps)
    parts = retention_of(reader, [counts_of(row, reader.numel) for row in cuts])
    return Pruned(
        [rings(recipe, reader, index, row, factors) for index, row in enumerate(cuts)],
        lambda reader: parts,
    )


def rings(
    recipe: Recipe,
    reader: Reader,
    index: int,
    cuts: Sequence[Cut],
    factors: Factors,
    offset: int = 0,
    summed: Sequence[float] | None = None,
) -> Decision:
    """One expert's rings between its cuts, rescaled where the recipe says so.

    Args:
        summed: factors of what rescaling counts as kept; all rings by default.
    """
    own = factors[index]
    if all(cut == KEEP_ALL for cut in cuts):
        return Keep(own[0])
    decision = Rings(tuple(cuts), own, offset)
    if not _rescales(recipe, reader):
        return decision
    ratio = l1_ratio(reader, index, replace(decision, factors=tuple(summed or (1.0,) * len(own))))
    return replace(decision, factors=tuple(factor * ratio for factor in own))


def _rescales(recipe: Recipe, reader: Reader) -> bool:
    """Whether one tensor is rescaled: never by a pruner that lacks the switch."""
    return "rescale" in recipe.parameters and recipe.at("rescale", reader.entry)


def retention(
    recipe: Recipe,
    reader: Reader,
    dense: Sequence[float],
    counted: Sequence[int],
    inside: Sequence[tuple[float, float, float]],
) -> list[Retention]:
    """What is kept of one tensor; inside: per expert the last three values of `Retention`."""
    numel = reader.numel
    rows = zip(recipe.sources, dense, counted, inside, strict=True)
    return [
        Retention(numel, source.at("density", reader.entry) * numel, share * numel, count, *last)
        for source, share, count, last in rows
    ]


Cuts = tuple[dict[str, int], list[list[Cut]]]
"""With one cut over the model: where each tensor begins in it, and every expert's cuts."""


def measure(recipe: Recipe, passes: Passes) -> Evidence:
    """With `scope: model`, the cuts over the model laid flat, tensors sorted by name."""
    if recipe.parameters["scope"] != "model":
        return Evidence()
    offsets, count = model_offsets(passes.family)
    densities = [source.density.constant or 0.0 for source in recipe.sources]
    keeps = [
        [kept_count(count, one) for one in partition_densities(density, len(source.amplification))]
        for density, source in zip(densities, recipe.sources, strict=True)
    ]
    cuts = model_cuts(passes, keeps)
    rows = zip(densities, keeps, cuts, factors_of(recipe), strict=True)
    parts = tuple(
        Retention(
            count,
            asked * count,
            asked * count,
            row[-1],
            *inside_rings(row[-1], counts_of(own, count), factors),
        )
        for asked, row, own, factors in rows
    )
    return Evidence((offsets, cuts), retention=parts)


def check(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    """One cut over the model needs one density."""
    for source in recipe.sources:
        if recipe.parameters["scope"] == "model" and source.density.constant is None:
            raise RecipeError(
                f"models: {source.model}: scope: model ranks all tensors together and needs one "
                "density; give a single number, or scope: tensor"
            )
    return ()


def _is_uniform(recipe: Recipe) -> bool:
    return recipe.parameters["scope"] == "tensor" and True not in recipe.values_of("rescale")


METHODS = (
    Pruner(
        id="magnitude",
        place=1,
        title="Magnitude",
        summary="Keep the largest changes of every tensor.",
        formula="keep the int(density * n) entries of largest |delta|, drop the rest",
        paper="Yadav et al. 2023, TIES-Merging, step 1 (trim)",
        url="https://arxiv.org/abs/2306.01708",
        words="Keep the largest changes, {kept}.",
        law=Law("largest"),
        passes=lambda recipe: 2 if recipe.parameters["scope"] == "model" else 0,
        measure=measure,
        decide=decide,
        check=check,
        uniform=_is_uniform,
        knobs=(DENSITY, SCOPE, AMPLIFICATION, PARTITION_MODE, RESCALE),
    ),
)

PRESETS = (
    Preset(
        id="magnitude",
        place=1,
        title="Magnitude pruning",
        group="elect",
        prune="magnitude",
        consensus="sum",
        summary="Keeps each expert's largest changes and adds them.",
        use_when="You want small edits that do not get in each other's way.",
        shown={"density": 0.2},
    ),
)
