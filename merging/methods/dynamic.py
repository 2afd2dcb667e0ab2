"""Dynamic pruning, the DP of DPPA: densities set per layer and per linear by their outliers.

Source: arXiv 2403.02799, step 1, and its released code, whose masks `tie_rule: drop` reproduces bit
for bit. A layer or linear with more outlying changes keeps more of them.

For one expert, with d = delta, W = |d|, s = 1 - density, shift = `density_shift`:
1. layer outlier rate  r_l  = share of W > layer_outlier * mean(W), all linears of block l pooled;
2. layer offset        A_l  = (r_l - mean r) / max|r - mean r|;
3. linear outlier rate q_lk = share of W > linear_outlier * mean(W), per linear;
4. linear offset       u = q / mean(q); u -= sum(n u) / sum(n); B = u / max|u|  (n: entries);
5. density             rho_lk = (1 - s) + shift * A_l + shift * B_lk;
6. keep W > sorted(W)[int(n * (1 - rho_lk))]: strictly above, every tie at the cut is dropped.

Where we differ: step 6 drops most of what it should keep where changes take few distinct values, as
they do between bfloat16 checkpoints. By default (`tie_rule: spread`) exactly int(rho_lk * n)
entries stay, at least one where rho_lk is above 0; of equal ones at the cut some, spread evenly
over the linear (`selection.tied`). A rho below 0 or above 1 ends there, and the others move by one
amount, so that the whole keeps the density asked for (`fitted`). With `tie_rule: drop` ties go and
rho is only clipped. Equal rates give offset 0 (not NaN). Embeddings, norms and heads are not
pruned; `scale_dense` says what becomes of their delta.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.checkpoints import Entry
from merging.declarations import shifts
from merging.declarations.knobs import AMPLIFICATION, DENSITY, PARTITION_MODE, Knob
from merging.declarations.laws import (
    Law,
    dense_factor,
    kept_count,
    kept_counts,
    partition_densities,
)
from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import Evidence, Preset, Pruned, Pruner
from merging.declarations.retention import counts_of, inside_rings
from merging.declarations.values import Recipe, Source, value_at
from merging.evidence.outliers import measure_outliers
from merging.instructions import Keep
from merging.methods import magnitude
from merging.selection.tied import KEEP_ALL, KEEP_NONE, Cut

Nested = tuple[list[list[float]], magnitude.Keeps]
"""Of one linear, per expert, the K nested densities, and how many entries each keeps."""
Densities = tuple[magnitude.Factors, dict[str, Nested]]
"""The factors on the rings, and of every linear by name its densities."""


def cut_rank(numel: int, rho: float) -> int:
    """Ascending rank of the cut T of step 6; entries strictly above it are kept.

    Returns:
        rank in [0, numel), or -1 to keep everything (rho >= 1), or numel to keep nothing.
    """
    if rho >= 1.0:
        return -1
    if rho <= 0.0:
        return numel
    return min(int(numel * (1.0 - rho)), numel)


def measure(recipe: Recipe, passes: Passes) -> Evidence:
    """Steps 1 to 5: counts outliers, and sets every linear's densities by them."""
    values = recipe.parameters
    outliers = measure_outliers(
        passes, layer_outlier=values["layer_outlier"], linear_outlier=values["linear_outlier"]
    )
    linears = outliers.linears
    numels = np.array([entry.numel for entry in linears])
    experts = [
        _nested(recipe, source, offsets, linears)
        for source, offsets in zip(recipe.sources, outliers.offsets, strict=True)
    ]
    densities = zip(*(rows.tolist() for rows in experts), strict=True)
    counts = zip(*(kept_counts(numels[:, None], rows).tolist() for rows in experts), strict=True)
    rows = zip(linears, densities, counts, strict=True)
    nested = {e.name: (list(own), tuple(map(tuple, keeps))) for e, own, keeps in rows}
    return Evidence((magnitude.factors_of(recipe), nested))


def _nested(
    recipe: Recipe,
    source: Source,
    offsets: tuple[np.ndarray, np.ndarray],
    linears: Sequence[Entry],
) -> np.ndarray:
    """(n_linears, K) densities of one expert's nested partitions."""
    shift, count = recipe.parameters["density_shift"], len(source.amplification)
    layer, linear = offsets
    numels = np.array([entry.numel for entry in linears], dtype=np.float64)
    densities = [value_at(source.density, entry) for entry in linears]
    shares = {density: partition_densities(density, count) for density in set(densities)}
    asked = np.array([shares[density] for density in densities]).reshape(len(linears), count)
    if recipe.parameters["tie_rule"] == "drop":
        rows = [shifts.densities(one, shift, layer, linear) for one in asked.T]
        return np.clip(rows, 0.0, 1.0).T
    moved = shift * (layer + linear)
    return np.array([shifts.fitted(one + moved, numels, one) for one in asked.T]).T


def decide(recipe: Recipe, reader: Reader, evidence: Densities) -> Pruned:
    """Step 6: cuts of a linear; other tensors as `scale_dense` says."""
    factors, linears = evidence
    if not reader.entry.place.is_linear:
        scale = recipe.parameters["scale_dense"]
        return Pruned([Keep(dense_factor(scale, own)) for own in factors])
    nested, keeps = linears[reader.entry.name]
    dense = [row[-1] for row in nested]
    if recipe.parameters["tie_rule"] == "drop":
        ranks = [[cut_rank(reader.numel, rho) for rho in row] for row in nested]
        return _above(recipe, reader, ranks, dense, factors)
    return magnitude.largest(recipe, reader, keeps, dense, factors)


def _above(
    recipe: Recipe,
    reader: Reader,
    ranks: Sequence[Sequence[int]],
    dense: Sequence[float],
    factors: magnitude.Factors,
) -> Pruned:
    """Rings that hold what is strictly above the entries at some ascending ranks."""
    inner = [[rank for rank in row if 0 <= rank < reader.numel] for row in ranks]
    statistics = reader.order_statistics(inner) if any(inner) else [[] for _ in inner]
    cuts = []
    for row, inner_ranks, values in zip(ranks, inner, statistics, strict=True):
        by_rank = {-1: KEEP_ALL, reader.numel: KEEP_NONE}
        for rank, one in zip(inner_ranks, values, strict=True):
            by_rank[rank] = Cut(one.value, 0, one.above)  # strictly above: no tie is kept
        cuts.append([by_rank[rank] for rank in row])
    counted = [kept_count(reader.numel, one) for one in dense]
    above = [reader.numel if row[-1].count is None else row[-1].count for row in cuts]
    nested = [counts_of(row, reader.numel) for row in cuts]
    inside = list(map(inside_rings, above, nested, factors))
    retention = magnitude.retention(recipe, reader, dense, counted, inside)
    return Pruned(
        [magnitude.rings(recipe, reader, index, row, factors) for index, row in enumerate(cuts)],
        lambda reader: retention,
    )


METHODS = (
    Pruner(
        id="dynamic",
        place=2,
        title="Dynamic",
        summary="Keep the largest changes, more of them where a layer or linear has outliers.",
        formula="density per linear = density + shift * layer offset + shift * linear offset",
        paper="Zhu et al. 2024, DPPA, step 1 (dynamic pruning)",
        url="https://arxiv.org/abs/2403.02799",
        words="Keep about {kept}, more where layers have outliers.",
        law=Law("largest", linears=True),
        passes=lambda recipe: 2,
        measure=measure,
        decide=decide,
        knobs=(
            DENSITY,
            AMPLIFICATION,
            PARTITION_MODE,
            Knob(
                "density_shift",
                "Density shift",
                0.08,
                "How far the density may move by layer, and again by linear.",
                low=0.0,
                high=0.2,
                step=0.01,
                unit="share of entries",
            ),
            Knob(
                "layer_outlier",
                "Layer outlier",
                3.0,
                "A change above this many means counts as an outlier of its layer.",
                low=1.0,
                high=10.0,
                step=0.5,
                unit="means",
            ),
            Knob(
                "linear_outlier",
                "Linear outlier",
                5.0,
                "A change above this many means counts as an outlier of its linear.",
                low=1.0,
                high=10.0,
                step=0.5,
                unit="means",
            ),
            Knob(
                "scale_dense",
                "Unpruned tensors",
                "one",
                "Embeddings, norms and heads: add their change once, times the largest factor, "
                "or not.",
                choices=("one", "max", "none"),
            ),
            Knob(
                "tie_rule",
                "Equal changes at the cut",
                "spread",
                "spread: keep as many as asked for, evenly placed. drop: none of them (authors' "
                "code).",
                choices=("spread", "drop"),
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="dppa",
        place=0,
        title="DPPA",
        group="elect",
        prune="dynamic",
        consensus="sum",
        summary="Prunes by magnitude with densities per layer and linear, amplifies what is left.",
        use_when="Experts drifted far from the base and must be pruned hard.",
        defaults={"density": 0.2, "amplification": (1.0, 1.0)},
        # of the built-in family merged four ways, these settings keep most
        opening={
            "density": 0.3,
            "amplification": (1.7, 1.4, 1.1, 1.0),
            "lambda": 0.4,
            "scale_dense": "none",
        },
    ),
)
