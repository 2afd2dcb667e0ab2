"""What becomes of one expert's delta: which of its entries stay, times what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from merging.instructions import draws
from merging.instructions.eager import Eager
from merging.instructions.ranked import Ranked, draw
from merging.later import torch
from merging.selection.statistics import split
from merging.selection.tied import Bound, Cut, upper_places

CLOSEST = 1e-6  # of what is clipped, a size below this counts as this


@dataclass(frozen=True)
class Keep:
    """Every entry is kept, times `scale`."""

    scale: float = 1.0


@dataclass(frozen=True)
class Rings:
    """Entries are kept by magnitude, in K rings with a factor each.

    Attributes:
        cuts: K cuts, descending.
        factors: K factors.
        offset: index of the tensor's first entry in the scope of the cuts.
    """

    cuts: tuple[Cut, ...]
    factors: tuple[float, ...]
    offset: int = 0

    def pieces(self, start: int, stop: int) -> list[tuple[int, int, list[Bound]]]:
        """(start, stop, bounds) inside the tensor; bounds are exact in each piece."""
        first = self.offset
        return [
            (a - first, b - first, bounds)
            for a, b, bounds in split(self.cuts, start + first, stop + first)
        ]


@dataclass(frozen=True)
class Ranks:
    """Entries are kept by their place among the magnitudes; the engine finds the cuts, and of
    equal ones parted by a cut keeps those of lowest place (`selection.tied`).

    Attributes:
        counts: K numbers of entries, ascending: ring k ends after the counts[k] largest.
        factors: K factors.
    """

    counts: tuple[int, ...]
    factors: tuple[float, ...]


@dataclass(frozen=True)
class Draw:
    """Entries are kept at random with probability `density`, times `scale`."""

    keys: tuple[int, int]
    density: float
    scale: float


@dataclass(frozen=True)
class Clip:
    """Every entry is kept up to a size: delta * clip(limit / max(|delta|, 1e-6), 0, 1)."""

    limit: float


Decision = Keep | Rings | Ranks | Draw | Ranked | Clip | Eager


def apply(decision: Decision, delta: torch.Tensor, start: int) -> torch.Tensor:
    """The pruned delta of one chunk.

    Args:
        delta: (n,) float32, not changed; for what `needs` more, of that shape.
        start: index of its first entry in the tensor.

    Returns:
        (n,) float32.
    """
    if isinstance(decision, Eager):
        return decision.function(delta, start)
    if isinstance(decision, Ranked):
        return draw(decision, delta, start)
    if isinstance(decision, Clip):
        closeness = torch.full_like(delta, decision.limit) / delta.abs().clamp(min=CLOSEST)
        return closeness.clamp(0.0, 1.0) * delta
    if isinstance(decision, Keep):
        return delta if decision.scale == 1.0 else delta * decision.scale
    stop = start + delta.numel()
    if isinstance(decision, Ranks):
        raise TypeError("ranks are for engines that find the cuts themselves")
    if isinstance(decision, Draw):
        keep = draws.keep_mask(start, stop, decision.density, decision.keys, delta.device)
        return draws.drop(delta, keep, decision.scale)
    parts = [
        amplify(
            delta[a - start : b - start],
            nested(delta[a - start : b - start], bounds, a + decision.offset),
            decision.factors,
        )
        for a, b, bounds in decision.pieces(start, stop)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def nested(delta: torch.Tensor, bounds: Sequence[Bound], first: int) -> list[torch.Tensor]:
    """Which entries lie within each bound.

    Args:
        delta: (n,) float32.
        first: index of its first entry in the scope of the bounds.

    Returns:
        K masks, (n,) bool.
    """
    magnitude = delta.abs()
    parted = any(bound.ties for bound in bounds)
    place = upper_places(first, first + delta.numel(), delta.device) if parted else None
    return [
        magnitude >= bound.upper
        if place is None or not bound.ties
        else magnitude >= torch.where(place < bound.ties, bound.lower, bound.upper)
        for bound in bounds
    ]


def amplify(
    delta: torch.Tensor, nested: Sequence[torch.Tensor], factors: Sequence[float]
) -> torch.Tensor:
    """Scales the entries of each ring and drops those outside all rings.

    Args:
        delta: (n,) float32.
        nested: K masks, (n,) bool; ring k holds what the k-th has and no earlier one.
        factors: K factors.

    Returns:
        (n,) float32: delta * factor of its ring, 0 outside all rings.
    """
    if len(nested) == 1 and factors[0] == 1.0:
        return torch.where(nested[0], delta, 0.0)
    factor = torch.zeros_like(delta)
    for inside, value in zip(reversed(nested), reversed(factors), strict=True):
        factor = torch.where(inside, value, factor)
    return factor.mul_(delta)
