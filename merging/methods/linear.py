"""Sum and mean: task arithmetic, weight averaging.

Source: Ilharco et al., Editing Models with Task Arithmetic, arXiv 2212.04089, section 2:
theta = base + lambda * sum_i w_i * delta_i. The mean divides by sum_i w_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merging.later import torch
from merging.methods import elementary
from merging.methods.registry import LAMBDA, NORMALIZE, WEIGHT, Axis

if TYPE_CHECKING:
    from merging.methods.registry import Number

SUM = Axis(
    id="sum",
    kind="consensus",
    title="Sum",
    summary="Add the experts' changes.",
    formula="base + lambda * sum_i weight_i * delta_i",
    paper="Ilharco et al. 2022, Editing Models with Task Arithmetic",
    url="https://arxiv.org/abs/2212.04089",
    knobs=(WEIGHT, LAMBDA, NORMALIZE),
)
MEAN = Axis(
    id="mean",
    kind="consensus",
    title="Mean",
    summary="Average the experts' changes.",
    formula="base + lambda * sum_i weight_i * delta_i / sum_i weight_i",
    paper="Wortsman et al. 2022, Model Soups",
    url="https://arxiv.org/abs/2203.05482",
    knobs=(WEIGHT, LAMBDA),
)


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
