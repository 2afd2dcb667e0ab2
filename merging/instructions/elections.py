"""A sign elected for every parameter, and the mean of those that agree with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merging.instructions.sums import add_up
from merging.later import torch

if TYPE_CHECKING:
    from merging.instructions.sums import Number


@dataclass(frozen=True)
class Election:
    """TIES: the weighted mean (or sum) of those that agree with the elected sign."""

    weights: tuple[float, ...]
    normalize: bool = True
    zero_is_positive: bool = True


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
