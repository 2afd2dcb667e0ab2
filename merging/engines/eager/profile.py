"""What one pass over a tensor's changes measures for its sketch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from merging.declarations.measures import Near
from merging.selection.statistics import HALF


@dataclass
class Profile:
    """Sums over one tensor of E experts' deltas.

    Attributes:
        histogram: (E, n) int64, entries by the upper 16 bits of |delta|, from `first` on.
        nonzero: (E,) int64.
        coarse: (E, n) int64, those of `histogram` whose lower 16 bits are zero; no zeros.
        l1, l2, largest: (E,) float64, sums of |delta| and of delta squared, largest |delta|.
        dots: (E, E) float64, inner products.
        base_l2: sum of squares of the base.
        sample: (1 + E, s) float32 pieces of what is sampled, in order: the base's values, then the
            deltas.
        near: per expert, what lies near the values asked for; empty where that was not kept.
        first: upper bits of the first bucket; before and after the histogram there are no entries.
    """

    histogram: np.ndarray
    nonzero: np.ndarray
    coarse: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    largest: np.ndarray
    dots: np.ndarray
    base_l2: float
    sample: list[np.ndarray]
    near: list[list[Near]]
    first: int = 0

    @staticmethod
    def empty(experts: int, buckets: int = HALF) -> Profile:
        """All sums 0."""
        return Profile(
            histogram=np.zeros((experts, buckets), dtype=np.int64),
            nonzero=np.zeros(experts, dtype=np.int64),
            coarse=np.zeros((experts, buckets), dtype=np.int64),
            l1=np.zeros(experts),
            l2=np.zeros(experts),
            largest=np.zeros(experts),
            dots=np.zeros((experts, experts)),
            base_l2=0.0,
            sample=[],
            near=[[] for _ in range(experts)],
        )
