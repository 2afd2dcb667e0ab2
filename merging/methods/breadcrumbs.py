"""Model Breadcrumbs: drop the largest changes as outliers, and the small ones.

Source: Davari and Belilovsky, Model Breadcrumbs, arXiv 2312.06795. Per tensor of n entries, by
magnitude: the int(gamma n) largest go, the next int(density n) stay, the others go. That is two
rings, the first with factor 0 (`merging.instructions.pruning`). `breadcrumbs` adds the changes up;
`breadcrumbs_ties` elects signs first.

As mergekit 0.1.5: int(density n) stay always, so that fewer outliers go where gamma + density is
above 1; a density of 1 or more keeps everything, outliers too. The authors' code ranks within rows;
mergekit, as here, within tensors. Which of equal changes stay: `merging.selection.tied`.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.checkpoints import Entry
from merging.declarations.knobs import DENSITY, RESCALE, Knob
from merging.declarations.laws import SKIPPING, Law
from merging.declarations.measures import Reader
from merging.declarations.methods import Preset, Pruned, Pruner
from merging.declarations.retention import Retention, counts_of
from merging.declarations.values import Recipe
from merging.instructions import Decision, Keep, Ranks
from merging.methods import magnitude
from merging.selection.statistics import largest_cuts


def counts(numel: int, density: float, gamma: float) -> tuple[int, int]:
    """How many of the largest entries are dropped, and how many of the next are kept.

    Args:
        numel: entries of the tensor.
        density: share kept, 0 or more.
        gamma: share of the largest dropped, in [0, 1].
    """
    if density >= 1:
        return 0, numel
    kept_count = int(density * numel)
    return min(int(gamma * numel), numel - kept_count), kept_count


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Pruned:
    """Two rings of every expert's changes, the first with factor 0."""
    if reader.numel == 0:
        return Pruned([Keep()] * reader.experts)
    entry, numel = reader.entry, reader.numel
    shares = recipe.of_all("density", entry), recipe.of_all("gamma", entry)
    pairs = [counts(numel, *row) for row in zip(*shares, strict=True)]
    keeps = [(dropped, dropped + kept_count) for dropped, kept_count in pairs]
    factors = (SKIPPING,) * reader.experts
    if reader.finds_cuts and not recipe.at("rescale", entry):

        def count(reader: Reader) -> list[Retention]:
            rows = zip(keeps, reader.changed(), strict=True)
            nested = [[min(one, changed) for one in row] for row, changed in rows]
            return _retention(recipe, reader, pairs, nested)

        return Pruned([Ranks(row, SKIPPING) for row in keeps], count)
    cuts = largest_cuts(reader.order_statistics, reader.stops, numel, keeps)
    nested = [counts_of(row, numel) for row in cuts]
    rings: list[Decision] = [
        magnitude.rings(recipe, reader, index, row, factors, summed=SKIPPING)
        if keeps[index][0]
        else magnitude.rings(recipe, reader, index, row[1:], ((1.0,),) * reader.experts)
        for index, row in enumerate(cuts)
    ]
    retention = _retention(recipe, reader, pairs, nested)
    return Pruned(rings, lambda reader: retention)


def _retention(
    recipe: Recipe,
    reader: Reader,
    pairs: Sequence[tuple[int, int]],
    nested: Sequence[Sequence[int]],
) -> list[Retention]:
    rows = []
    for source, (_, count), (first, last) in zip(recipe.sources, pairs, nested, strict=True):
        asked = source.at("density", reader.entry) * reader.numel
        changed = max(last - first, 0)
        rows.append(Retention(reader.numel, asked, asked, count, count, changed, changed))
    return rows


def remarks(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    """Where a density of 1, mergekit's default, leaves nothing to drop, outliers neither."""
    if entries or any(one < 1.0 for source in recipe.sources for one in source.density.values):
        return ()
    return ("density: 1 keeps every change, outliers too; 0.5 or so drops some",)


METHODS = (
    Pruner(
        id="breadcrumbs",
        title="Breadcrumbs",
        summary="Drop the largest changes as outliers, and the small ones.",
        formula="drop the int(gamma n) largest |delta|, keep the next int(density n)",
        paper="Davari and Belilovsky 2023, Model Breadcrumbs",
        url="https://arxiv.org/abs/2312.06795",
        words="Drop the largest changes, a share of {gamma}; of the rest keep the largest, {kept}.",
        law=Law("largest", skip="gamma"),
        place=4,
        decide=decide,
        uniform=lambda recipe: True not in recipe.values_of("rescale"),
        check=remarks,
        knobs=(
            DENSITY,
            Knob(
                "gamma",
                "Outliers",
                0.01,
                "Share of each expert's changes, largest first, that is dropped.",
                low=0.0,
                high=1.0,
                step=0.005,
                unit="share of entries",
                per_model=True,
                scheduled=True,
            ),
            RESCALE,
        ),
    ),
)

PRESETS = (
    Preset(
        id="breadcrumbs",
        title="Breadcrumbs",
        group="elect",
        place=6,
        prune="breadcrumbs",
        consensus="sum",
        summary="Drops outliers and small changes, adds the rest.",
        use_when="Single huge changes spoil a sum.",
        shown={"density": 0.5},
    ),
    Preset(
        id="breadcrumbs_ties",
        title="Breadcrumbs + TIES",
        group="elect",
        place=7,
        prune="breadcrumbs",
        consensus="ties",
        summary="Drops outliers and small changes, then elects signs.",
        use_when="As Breadcrumbs, with several experts that disagree.",
        defaults={"normalize": False},
        shown={"density": 0.5},
    ),
)
