"""Magnitude pruning and partition amplification: keep the largest changes, scale them by rank.

Source: trimming as in TIES-Merging (arXiv 2306.01708, section 4.1) and partitions as in DPPA
(arXiv 2403.02799, step 2), generalised to K partitions. Per tensor by default, over the whole
model with `scope: model`. Tie rule: exactly int(density * n) entries are kept (one at least
where the density is above 0), largest |delta| first; of equal magnitudes the cut keeps some, spread
over the tensor (`selection.tied`). mergekit keeps the same number, equal magnitudes in no stated
order.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.declarations.knobs import (
    AMPLIFICATION,
    DENSITY,
    PARTITION_MODE,
    SCOPE,
    Axis,
    Knob,
    Law,
)

AXIS = Axis(
    id="magnitude",
    kind="prune",
    title="Magnitude",
    summary="Keep the largest changes of every tensor.",
    formula="keep the int(density * n) entries of largest |delta|, drop the rest",
    paper="Yadav et al. 2023, TIES-Merging, step 1 (trim)",
    url="https://arxiv.org/abs/2306.01708",
    words="Keep the largest {kept}.",
    law=Law("largest"),
    knobs=(
        DENSITY,
        SCOPE,
        AMPLIFICATION,
        PARTITION_MODE,
        Knob(
            "rescale", "Rescale", False,
            "Multiply what is kept of a tensor so that the sum of its magnitudes stays.",
        ),
    ),
)  # fmt: skip


def kept_count(numel: int, density: float) -> int:
    """Number of entries kept of `numel` at `density` in [0, 1], as mergekit: int(density * n), but
    at least one where the density is above 0."""
    return min(numel, max(int(density * numel), int(density > 0)))


def partition_densities(density: float, partitions: int) -> list[float]:
    """Nested densities of K partitions, smallest first; the last equals `density`."""
    inner = [round(density * (k + 1) / partitions, 12) for k in range(partitions - 1)]
    return [*inner, density]


def ring_factors(amplification: Sequence[float], mode: str) -> list[float]:
    """Factor that each ring gets, most important ring first.

    Args:
        amplification: K factors, most important partition first, each >= 0.
        mode: "ring": as given. "max": the authors' code, where overlapping partitions are folded
            by larger magnitude, so that a ring gets the largest factor of itself and later ones.
    """
    if mode == "ring":
        return list(amplification)
    return [max(amplification[k:]) for k in range(len(amplification))]
