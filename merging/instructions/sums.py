"""The weighted sum of several deltas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.instructions import elementary
from merging.later import torch

if TYPE_CHECKING:
    Number = float | torch.Tensor
    """A factor: a float, or a tensor without dimensions, as compiled kernels get it."""


@dataclass(frozen=True)
class Sum:
    """The weighted sum, divided by the weights' sum if `normalize`."""

    weights: tuple[float, ...]
    normalize: bool = False


def weighted_sum(
    deltas: Sequence[torch.Tensor], weights: Sequence[float], normalize: bool
) -> torch.Tensor:
    """sum_i w_i * delta_i, divided by sum_i w_i if `normalize`.

    Args:
        deltas: n_experts tensors, each (n,) float32, not changed.
        weights: n_experts factors. A sum below 1e-8 divides by 1, as mergekit does.

    Returns:
        (n,) float32.
    """
    return elementary.divide(add_up(deltas, weights), divisor(weights, normalize))


def add_up(deltas: Sequence[torch.Tensor], weights: Sequence[Number]) -> torch.Tensor:
    """sum_i w_i * delta_i, one expert after the other. Shapes as `weighted_sum`."""
    total = deltas[0] * weights[0]
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        total += delta * weight  # not add_(alpha=): that may fuse, and round once instead of twice
    return total


def divisor(weights: Sequence[float], normalize: bool) -> float:
    """What the weighted sum is divided by: 1, or the weights' sum unless it is (nearly) 0."""
    total = sum(weights) if normalize else 1.0
    return total if abs(total) >= 1e-8 else 1.0
