"""Entries kept at random, with a chance that grows with their rank in their row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from merging.instructions import draws
from merging.instructions.eager import Needs
from merging.later import torch

LEAST = 1e-7  # as mergekit: sums of magnitudes below this are none


@dataclass(frozen=True)
class Ranked:
    """DELLA: draws below low + (high - low) * r / (columns - 1) are kept, times a factor.

    r is the mean rank of the entries in the row whose magnitude is the entry's, from 0 for the
    smallest. A row of one entry is kept below `only`.

    Attributes:
        keys: of the draws.
        low, high, only: draws (of 2**24), 0 <= low <= high.
        by_chance: survivors are divided by their own chance, too.
        rescaled: instead of `scale` the factor that makes their sum of magnitudes that of all
            changes of the tensor (`ratio`); for engines that find it themselves.
    """

    keys: tuple[int, int]
    low: int
    high: int
    only: int
    scale: float = 1.0
    by_chance: bool = False
    rescaled: bool = False
    needs: ClassVar[Needs] = "rows"


def ratio(before: float, after: float) -> float:
    """What survivors are multiplied by so that their sum is that of all, rounded to float32, which
    is what entries are multiplied by: so the order in which an engine adds up is lost.

    Args:
        before, after: sums of magnitudes of all entries and of the survivors; below LEAST they are
            none, and the ratio is 1.
    """
    return float(np.float32(before / after)) if min(before, after) >= LEAST else 1.0


def twice_ranks(delta: torch.Tensor) -> torch.Tensor:
    """Twice the mean rank of the entries in the row whose magnitude is the entry's, from 0 for the
    smallest to 2 (columns - 1).

    Args:
        delta: (rows, columns) float32, all columns of some rows; at least two columns.

    Returns:
        (rows, columns) int64.
    """
    magnitude = delta.abs()
    ordered = torch.sort(magnitude, dim=1).values
    below = torch.searchsorted(ordered, magnitude)
    up_to = torch.searchsorted(ordered, magnitude, right=True)
    return (below + up_to - 1).clamp_(0, 2 * (delta.shape[1] - 1))


def limits(delta: torch.Tensor, ranked: Ranked) -> torch.Tensor:
    """Draws below these are kept.

    Args:
        delta: (rows, columns) float32, all columns of some rows.

    Returns:
        (rows, columns) int32.
    """
    last = delta.shape[1] - 1
    if last < 1:
        return torch.full_like(delta, ranked.only, dtype=torch.int32)
    twice = twice_ranks(delta)
    return (ranked.low + (ranked.high - ranked.low) * twice // (2 * last)).to(torch.int32)


def draw(ranked: Ranked, delta: torch.Tensor, start: int) -> torch.Tensor:
    """What is left of some rows.

    Args:
        delta: (rows, columns) float32, all columns of some rows, not changed.
        start: flat index of the first entry in the tensor.

    Returns:
        (rows, columns) float32. What is not finite stays so, or becomes NaN.
    """
    if ranked.rescaled:
        raise TypeError("survivors are rescaled by engines that find the factor themselves")
    below = limits(delta, ranked).flatten()
    index = torch.arange(start, start + delta.numel(), device=delta.device)
    keep = draws.kept_at(index, *ranked.keys, below)
    scale: float | torch.Tensor = ranked.scale
    if ranked.by_chance:
        scale = ranked.scale / (below.clamp(min=1).to(torch.float32) / draws.RANGE)
    return draws.drop(delta.flatten(), keep, scale).view_as(delta)
