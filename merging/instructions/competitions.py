"""Experts that compete for every parameter, by scores of their own deltas and of their agreement.

The formulas are PCB-Merging's, see `merging.methods.pcb`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from merging.instructions import elementary
from merging.later import torch


@dataclass(frozen=True)
class Bounds:
    """What one expert's competition needs of its order statistics, in one scope.

    Attributes:
        low, high: clip bounds on |tau|.
        threshold, top: the (1 - r) order statistic of b and its maximum.
    """

    low: float
    high: float
    threshold: float = 0.0
    top: float = 0.0


@dataclass(frozen=True)
class Competition:
    """PCB: the experts that differ from the base, and the bounds of their scores."""

    weights: tuple[float, ...]
    variant: str
    active: tuple[int, ...]
    bounds: tuple[Bounds, ...] = field(repr=False)


def clipped(tau: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """C_i: tau with |tau| clipped to the bounds; 0 stays 0. (n,) float32."""
    return torch.sign(tau) * tau.abs().clamp(bounds.low, bounds.high)


def normalized(tau: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """v_i: signed min-max of the clipped magnitude, in [-1, 1]. (n,) float32."""
    span = bounds.high - bounds.low
    if span <= 0:
        return torch.zeros_like(tau)
    above = tau.abs().clamp(bounds.low, bounds.high) - bounds.low
    return torch.sign(tau) * elementary.divide(above, span)


def scores(
    taus: Sequence[torch.Tensor], bounds: Sequence[Bounds], variant: str
) -> list[torch.Tensor]:
    """b_i of every expert.

    Args:
        taus: n_experts task vectors, each (n,) float32.
        bounds: their clip bounds (threshold and top are not used).
        variant: a key of CLIP.

    Returns:
        n_experts tensors, each (n,) float32.
    """
    signed = [normalized(tau, bound) for tau, bound in zip(taus, bounds, strict=True)]
    if variant == "pairwise":
        inters = [sum(elementary.tanh(v * other) for other in signed) for v in signed]
    else:
        total = sum(signed if variant == "vision" else taus)
        inters = [elementary.tanh(tau * total) for tau in taus]
    count = len(taus)
    return [elementary.exp(count * v * v) * inter for v, inter in zip(signed, inters, strict=True)]


def survivors(score: torch.Tensor, bound: Bounds) -> torch.Tensor:
    """S_i: 0 up to the threshold, then up to 1 at the top. (n,) float32."""
    span = bound.top - bound.threshold
    if span <= 0:
        if bound.top == 0 and bound.high > bound.low:  # out-voted everywhere: exact opposites
            return torch.zeros_like(score)
        return (score >= bound.threshold).to(score.dtype)
    return elementary.divide(score.clamp(bound.threshold, bound.top) - bound.threshold, span)


def balance(
    taus: Sequence[torch.Tensor],
    weights: Sequence[float],
    bounds: Sequence[Bounds],
    variant: str,
) -> torch.Tensor:
    """The merged task vector of one chunk.

    Args:
        taus: n_experts task vectors, each (n,) float32, not changed.
        weights: the experts' lambda_i.
        bounds: complete bounds, one per expert.

    Returns:
        (n,) float32.
    """
    numerator = torch.zeros_like(taus[0])
    denominator = torch.zeros_like(taus[0])
    for tau, score, weight, bound in zip(
        taus, scores(taus, bounds, variant), weights, bounds, strict=True
    ):
        share = survivors(score, bound)
        numerator += weight * clipped(tau, bound) * share
        denominator += share
    return numerator / denominator.clamp_min(1e-12)
