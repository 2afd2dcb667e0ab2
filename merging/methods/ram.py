"""Reinforced Agent Merging: keep what one model alone changed, average what several did.

Source: arXiv 2601.13572, as mergekit 0.1.5 computes it. Model i is active in an entry
where |d_i| > epsilon, and what is not active counts as no change. Of an entry in which k models are
active:

    merged = base + sum_active lambda_i d_i   if k = 1,   base + sum_active d_i / k   if k > 1

`ram` has lambda_i = 1. `ramplus_tl` makes up for what averaging takes from model i, per tensor:
with shared_i and unique_i its active entries in which others are active too or none is,

    lambda_i = 1 + r min(shared_i / max(unique_i, epsilon), alpha)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.later import torch


def counts(deltas: Sequence[torch.Tensor], epsilon: float) -> np.ndarray:
    """What lambda follows from; adds up over the chunks of a tensor.

    Args:
        deltas: n changes, each (m,) float32.

    Returns:
        (2, n) int64: shared and unique entries of every model.
    """
    active, together = _active(deltas, epsilon)
    several = together > 1
    shared = [int((one & several).sum()) for one in active]
    return np.array([shared, [int(one.sum()) for one in active]]) - np.array([[0], [1]]) * shared


def factors(counts: np.ndarray, r: float, alpha: float, epsilon: float) -> tuple[float, ...]:
    """lambda_i of every model.

    Args:
        counts: (2, n), see `counts`.
    """
    shared, unique = counts
    return tuple((1.0 + r * np.clip(shared / np.maximum(unique, epsilon), 0.0, alpha)).tolist())


def merge(
    deltas: Sequence[torch.Tensor], epsilon: float, factors: Sequence[float] | None = None
) -> torch.Tensor:
    """The merged change of one chunk.

    Args:
        deltas: n changes, each (m,) float32, not changed.
        factors: lambda_i; 1 each without.

    Returns:
        (m,) float32. NaN stays NaN.
    """
    active, together = _active(deltas, epsilon)
    alone, sharers = together == 1, together.clamp(min=1).to(deltas[0].dtype)
    total = torch.zeros_like(deltas[0])
    for delta, one, factor in zip(deltas, active, factors or [1.0] * len(deltas), strict=True):
        share = torch.where(alone, delta * factor, delta / sharers)
        total += torch.where(one, share, delta * 0.0)
    return total


def _active(
    deltas: Sequence[torch.Tensor], epsilon: float
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Where each model is active, and how many are."""
    active = [delta.abs() > epsilon for delta in deltas]
    together = torch.zeros_like(deltas[0], dtype=torch.int32)
    for one in active:
        together += one
    return active, together
