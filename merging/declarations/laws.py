"""What pruners do to magnitudes, as data, and the arithmetic of it.

A law says which changes stay: the plan here and the one in the browser (`assets/plan.js`) execute
it, and neither names a method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Order = Literal["all", "random", "largest"]


@dataclass(frozen=True)
class Law:
    """Which changes a pruner keeps.

    Attributes:
        order: all of them, as many as asked for at random, or the largest.
        linears: True where only linears are pruned; `scale_dense` scales the change of the others.
        skip: the knob that holds the share of entries, largest first, that are dropped before any
            is kept; None where none is.

    The knobs that a pruner declares say the rest: `density`, `scope`, `density_shift`, `tie_rule`,
    `amplification` with its `partition_mode`.
    """

    order: Order
    linears: bool = False
    skip: str | None = None


def kept_count(numel: int, density: float) -> int:
    """Number of entries kept of `numel` at `density` in [0, 1], as mergekit: int(density * n), but
    at least one where the density is above 0."""
    return min(numel, max(int(density * numel), int(density > 0)))


def kept_counts(numels: np.ndarray, densities: np.ndarray) -> np.ndarray:
    """As `kept_count`, of many tensors. int64, of the shape of both together."""
    counts = np.maximum((densities * numels).astype(np.int64), densities > 0)
    return np.minimum(numels, counts)


def partition_densities(density: float, partitions: int) -> list[float]:
    """Nested densities of K partitions, smallest first; the last equals `density`."""
    inner = [round(density * (k + 1) / partitions, 12) for k in range(partitions - 1)]
    return [*inner, density]


def rings_between(density: float, skip: float) -> list[float]:
    """Nested densities of two rings: what is skipped, the largest first, and what is kept after it.
    The density comes first: less is skipped where both together are above 1."""
    skipped = min(skip, 1.0 - density)
    return [skipped, skipped + density]


SKIPPING = (0.0, 1.0)
"""The factors of those two."""


def ring_factors(amplification: Sequence[float], mode: str) -> list[float]:
    """Factor that each ring gets, most important ring first.

    Args:
        amplification: K factors, most important partition first, each >= 0.
        mode: "ring": as given. "max": the code of DPPA's authors, where overlapping partitions are
            folded by larger magnitude, so that a ring gets the largest factor of itself and later
            ones.
    """
    if mode == "ring":
        return list(amplification)
    return [max(amplification[k:]) for k in range(len(amplification))]


def dense_factor(scale_dense: str, factors: Sequence[float]) -> float:
    """Factor on the change of tensors that are not pruned."""
    return {"one": 1.0, "max": max(factors), "none": 0.0}[scale_dense]
