"""TIES: elect a sign for every parameter, average the experts that agree with it.

Source: Yadav et al., TIES-Merging, arXiv 2306.01708, steps 2 and 3 (step 1, trimming, is the
magnitude pruner). As mergekit, weights take part in the vote, and the mean is weighted.
Exact cancellations: with `scope: tensor` a zero sum elects +, as mergekit; with `scope: model` it
elects the sign that won most parameters of the model (- where that is undecided), as the
authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from merging.later import torch
from merging.methods.linear import add_up
from merging.methods.registry import LAMBDA, NORMALIZE, SCOPE, WEIGHT, Axis

if TYPE_CHECKING:
    from merging.methods.registry import Number

AXIS = Axis(
    id="ties",
    kind="consensus",
    title="TIES",
    summary="Elect a sign per parameter, then average the experts that agree.",
    formula="sign = sgn(sum_i w_i delta_i); mean of w_i delta_i with that sign",
    paper="Yadav et al. 2023, TIES-Merging, steps 2-3",
    url="https://arxiv.org/abs/2306.01708",
    knobs=(WEIGHT, LAMBDA, replace(NORMALIZE, default=True), SCOPE),
)


def vote(deltas: Sequence[torch.Tensor], weights: Sequence[Number]) -> torch.Tensor:
    """sum_i w_i * delta_i, whose sign is elected. deltas: each (n,) float32. Returns (n,)."""
    return add_up(deltas, weights)


def sign_balance(total: torch.Tensor) -> int:
    """Parameters that elect + minus those that elect -; adds up over chunks."""
    return int((total > 0).sum()) - int((total < 0).sum())


def elect_and_merge(
    deltas: Sequence[torch.Tensor],
    weights: Sequence[Number],
    *,
    normalize: bool = True,
    zero_is_positive: bool = True,
) -> torch.Tensor:
    """The weighted mean (or sum) of the entries whose sign was elected.

    Args:
        deltas: n_experts pruned deltas, each (n,) float32, not changed.
        weights: n_experts factors; negative ones flip their expert's vote.
        normalize: divide by the weights that took part (0 divides by 1).
        zero_is_positive: the sign elected where the vote sums to 0.

    Returns:
        (n,) float32, 0 where nobody has the elected sign.
    """
    total = vote(deltas, weights)
    positive = total >= 0 if zero_is_positive else total > 0
    merged = torch.zeros_like(total)
    divisor = torch.zeros_like(total)
    for delta, weight in zip(deltas, weights, strict=True):
        weighted = delta * weight
        agrees = torch.where(positive, weighted > 0, weighted < 0)
        merged += torch.where(agrees, weighted, 0.0)
        if normalize:
            divisor += torch.where(agrees, weight, 0.0)
    if normalize:
        merged /= torch.where(divisor == 0, 1.0, divisor)
    return merged + total * 0.0  # NaN has no sign, and must be seen
