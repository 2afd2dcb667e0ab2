"""What measuring decided, as data: how each expert's delta is pruned, how deltas combine.

A decision and a combination hold numbers only, so the same ones drive the torch functions of
`merging.methods` and the fused loops of `merging.kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from merging.later import torch
from merging.methods import linear, magnitude, pcb, random, ties
from merging.selection import split
from merging.tied import Bound, Cut, upper_places


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
    equal ones parted by a cut keeps those of lowest place (`merging.tied`).

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


Decision = Keep | Rings | Ranks | Draw


@dataclass(frozen=True)
class Sum:
    """The weighted sum, divided by the weights' sum if `normalize`."""

    weights: tuple[float, ...]
    normalize: bool = False


@dataclass(frozen=True)
class Election:
    """TIES: the weighted mean (or sum) of those that agree with the elected sign."""

    weights: tuple[float, ...]
    normalize: bool = True
    zero_is_positive: bool = True


@dataclass(frozen=True)
class Competition:
    """PCB: the experts that differ from the base, and the bounds of their scores."""

    weights: tuple[float, ...]
    variant: str
    active: tuple[int, ...]
    bounds: tuple[pcb.Bounds, ...] = field(repr=False)


Combination = Sum | Election | Competition


@dataclass(frozen=True)
class Outcome:
    """How a merged delta meets the base: base * base_weight + delta * strength."""

    combination: Combination
    strength: float = 1.0
    base_weight: float = 1.0


def apply(decision: Decision, delta: torch.Tensor, start: int) -> torch.Tensor:
    """The pruned delta of one chunk.

    Args:
        delta: (n,) float32, not changed.
        start: index of its first entry in the tensor.

    Returns:
        (n,) float32.
    """
    if isinstance(decision, Keep):
        return delta if decision.scale == 1.0 else delta * decision.scale
    stop = start + delta.numel()
    if isinstance(decision, Ranks):
        raise TypeError("ranks are for engines that find the cuts themselves")
    if isinstance(decision, Draw):
        keep = random.keep_mask(start, stop, decision.density, decision.keys, delta.device)
        return random.drop(delta, keep, decision.scale)
    parts = [
        magnitude.amplify(
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


def combine(combination: Combination, deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """The merged delta of one chunk. deltas: pruned, each (n,) float32. Returns (n,) float32."""
    if isinstance(combination, Sum):
        return linear.weighted_sum(deltas, combination.weights, combination.normalize)
    if isinstance(combination, Election):
        return ties.elect_and_merge(
            deltas,
            combination.weights,
            normalize=combination.normalize,
            zero_is_positive=combination.zero_is_positive,
        )
    if not combination.active:
        return torch.zeros_like(deltas[0])
    return pcb.balance(
        [deltas[index] for index in combination.active],
        [combination.weights[index] for index in combination.active],
        combination.bounds,
        combination.variant,
    )
