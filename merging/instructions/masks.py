"""Pruned deltas combined by masks: selected by variance, unified, relied upon, shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from merging.instructions import elementary
from merging.instructions.pruning import nested
from merging.instructions.sums import add_up
from merging.later import torch
from merging.selection.statistics import split
from merging.selection.tied import KEEP_ALL, Cut

SMALLEST = 1e-6  # a divisor below this counts as this


@dataclass(frozen=True)
class Largest:
    """So many entries of the largest variance, for engines that find the cut themselves; of equal
    ones those of lowest place (`selection.tied`)."""

    count: int


@dataclass(frozen=True)
class Selected:
    """SCE: entries are selected by their variance over the experts; of what is left the weighted
    mean of those that agree with the sign of the plain sum, + where it is 0.

    Attributes:
        weights: of every expert; None where they are to be their shares of the mean squares of what
            is selected, for engines that find those themselves.
        cut: among the variances; KEEP_ALL selects all.
        least: mean squares that sum to less weigh all experts alike, where weights are to be found.
    """

    weights: tuple[float, ...] | None
    cut: Cut | Largest
    least: float = 0.0


@dataclass(frozen=True)
class Unified:
    """EMR: one task's share of the unified change, times a factor.

    Attributes:
        task: the expert's index.
        zero_is_negative: the sign elected where the changes sum to 0; else nobody is.
    """

    weights: tuple[float, ...]
    task: int
    scale: float
    zero_is_negative: bool = False


@dataclass(frozen=True)
class Relied:
    """TALL: the weighted sum where one task, or enough of them, rely on it.

    Attributes:
        thresholds: per expert.
        agreement: how many tasks must rely on an entry.
        task: the only expert that is asked; None asks all.
    """

    weights: tuple[float, ...]
    thresholds: tuple[float, ...]
    agreement: int
    task: int | None = None


@dataclass(frozen=True)
class Shared:
    """RAM: what one expert alone changed, times its weight; the mean of what several changed.

    Attributes:
        epsilon: changes up to this size count as none.
    """

    weights: tuple[float, ...]
    epsilon: float


Masks = Selected | Unified | Relied | Shared


def combine(masks: Masks, deltas: Sequence[torch.Tensor], start: int) -> torch.Tensor:
    """The merged delta of one chunk.

    Args:
        deltas: n pruned deltas, each (m,) float32, not changed.
        start: index of the first entry in the tensor.

    Returns:
        (m,) float32. NaN is seen.
    """
    if isinstance(masks, Selected):
        if isinstance(masks.cut, Largest) or masks.weights is None:
            raise TypeError("cuts and weights that are to be found are for engines that find them")
        return erase(selected(deltas, masks.cut, start), masks.weights)
    if isinstance(masks, Unified):
        weighted = weigh(deltas, masks.weights)
        union = unified(weighted, masks.zero_is_negative)
        return has_sign_of(weighted[masks.task], union) * union * masks.scale
    if isinstance(masks, Shared):
        return share(deltas, masks.epsilon, masks.weights)
    merged = add_up(deltas, masks.weights)
    asked = range(len(deltas)) if masks.task is None else [masks.task]
    votes = torch.zeros_like(merged, dtype=torch.int32)
    for index in asked:
        votes += relies(deltas[index], merged, masks.thresholds[index])
    return merged * (votes >= masks.agreement)


def variance(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """The variance over the experts, entry by entry: by Welford's steps in double, rounded once.

    Args:
        deltas: n changes, each (m,) float32.

    Returns:
        (m,) float32, 0 or more.
    """
    device = deltas[0].device
    if device.type in elementary.NO_FLOAT64:
        deltas = [delta.cpu() for delta in deltas]
    mean = torch.zeros_like(deltas[0], dtype=torch.float64)
    squares = torch.zeros_like(mean)
    for index, delta in enumerate(deltas):
        apart = delta - mean
        mean += elementary.divide(apart, index + 1)
        squares += apart * (delta - mean)
    return elementary.divide(squares, len(deltas)).to(torch.float32).to(device)


def selected(deltas: Sequence[torch.Tensor], cut: Cut, start: int) -> list[torch.Tensor]:
    """The changes of one chunk, 0 where they are not selected.

    Args:
        deltas: n changes, each (m,) float32, not changed.
        start: index of the first entry in the tensor.

    Returns:
        n tensors, each (m,) float32. NaN stays NaN.
    """
    if cut == KEEP_ALL:
        return list(deltas)
    values = variance(deltas)
    inside = torch.cat(
        [
            nested(values[a - start : b - start], bounds, a)[0]
            for a, b, bounds in split([cut], start, start + values.numel())
        ]
    )
    return [torch.where(inside, delta, delta * 0.0) for delta in deltas]


def erase(deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted mean of the changes that agree with the sign of their sum.

    Args:
        deltas: n changes, each (m,) float32, not changed.
        weights: n factors.

    Returns:
        (m,) float32. NaN stays NaN.
    """
    balance = torch.zeros_like(deltas[0])
    for delta in deltas:
        balance += delta
    total, divisor = torch.zeros_like(balance), torch.zeros_like(balance)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = torch.where(balance >= 0, delta > 0, delta < 0)
        total += torch.where(agrees, delta * weight, 0.0)
        divisor += torch.where(agrees, weight, 0.0)
    return total / divisor.clamp(min=SMALLEST) + balance * 0.0


def weigh(deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> list[torch.Tensor]:
    """Every change times its weight."""
    pairs = zip(deltas, weights, strict=True)
    return [delta if weight == 1.0 else delta * weight for delta, weight in pairs]


def unified(deltas: Sequence[torch.Tensor], zero_is_negative: bool = False) -> torch.Tensor:
    """The largest change with the elected sign.

    Args:
        deltas: n changes of one shape, float32, not changed.
        zero_is_negative: the sign elected where the changes sum to 0; else nobody is.

    Returns:
        float32 of the same shape; every entry is that of one of the changes, or 0. NaN where a
        change is NaN.
    """
    total = torch.zeros_like(deltas[0])
    highest = torch.zeros_like(deltas[0])
    lowest = torch.zeros_like(deltas[0])
    for delta in deltas:
        total += delta
        highest = torch.maximum(highest, delta)
        lowest = torch.minimum(lowest, delta)
    minus = total <= 0 if zero_is_negative else total < 0
    elected = torch.where(total > 0, highest, torch.where(minus, lowest, 0.0))
    return elected + (highest - highest) + (lowest - lowest)  # NaN has no sign, and must be seen


def has_sign_of(change: torch.Tensor, union: torch.Tensor) -> torch.Tensor:
    """Where a change has the sign of the unified change. bool, of the same shape."""
    return torch.where(union > 0, change > 0, (union < 0) & (change < 0))


def relies(change: torch.Tensor, merged: torch.Tensor, threshold: float) -> torch.Tensor:
    """Where a task relies on the merged change: |change| > threshold * |merged - change|. bool."""
    return change.abs() > (merged - change).abs() * threshold


def share(deltas: Sequence[torch.Tensor], epsilon: float, factors: Sequence[float]) -> torch.Tensor:
    """What one expert alone changed, times its factor; the mean of what several did.

    Args:
        deltas: n changes, each (m,) float32, not changed.
        epsilon: changes up to this size count as none.
        factors: n of them.

    Returns:
        (m,) float32. NaN stays NaN.
    """
    together = torch.zeros_like(deltas[0], dtype=torch.int32)
    for delta in deltas:
        together += delta.abs() > epsilon
    alone, sharers = together == 1, together.clamp(min=1).to(deltas[0].dtype)
    total = torch.zeros_like(deltas[0])
    for delta, factor in zip(deltas, factors, strict=True):
        part = torch.where(alone, delta * factor, delta / sharers)
        total += torch.where(delta.abs() > epsilon, part, delta * 0.0)
    return total
