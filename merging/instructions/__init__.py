"""What engines run, as data, and what it means in torch.

An instruction holds numbers, or for what has no fused form a function (`Eager`). Methods emit
instructions and know no engine; engines execute them and know no method: the torch functions here,
the C loops of `merging.kernels` and the GPU kernels of `merging.gpu` give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from merging.instructions import competitions, elections, masks, sums
from merging.instructions.competitions import Bounds, Competition
from merging.instructions.eager import Eager, Needs, widest
from merging.instructions.elections import Election
from merging.instructions.masks import Largest, Relied, Selected, Shared, Unified
from merging.instructions.pruning import Clip, Decision, Draw, Keep, Ranks, Rings, apply
from merging.instructions.ranked import Ranked
from merging.instructions.sums import Sum
from merging.later import torch

Combination = Sum | Election | Competition | Selected | Unified | Relied | Shared | Eager


@dataclass(frozen=True)
class Outcome:
    """What becomes of a tensor's pruned deltas: base * base_weight + combined delta * strength.

    Attributes:
        blend: computes the tensor from whole models instead; nothing else counts then.
    """

    combination: Combination
    strength: float = 1.0
    base_weight: float = 1.0
    blend: Eager | None = None

    @staticmethod
    def of(function: Callable[..., torch.Tensor], needs: Needs = "chunk") -> Outcome:
        """A tensor that function(base, models, start) computes, see `Eager`."""
        return Outcome(Sum(()), blend=Eager(function, needs))


def needs_of(decisions: Sequence[Decision] | None, outcome: Outcome | None = None) -> Needs:
    """What must be seen at once where torch runs these."""
    steps: list[object] = [*(decisions or ())]
    if outcome is not None:
        steps += [outcome.combination, outcome.blend]
    return widest([step.needs for step in steps if isinstance(step, Eager | Ranked)])


def combine(
    combination: Combination, deltas: Sequence[torch.Tensor], start: int = 0
) -> torch.Tensor:
    """The merged delta of one chunk.

    Args:
        deltas: pruned, float32, each (n,); shaped as it needs them for an Eager combination.
        start: index of their first element in the tensor.

    Returns:
        float32 of the same shape.
    """
    if isinstance(combination, Eager):
        return combination.function(deltas, start)
    if isinstance(combination, Sum):
        return sums.weighted_sum(deltas, combination.weights, combination.normalize)
    if isinstance(combination, Election):
        return elections.elect_and_merge(
            deltas,
            combination.weights,
            normalize=combination.normalize,
            zero_is_positive=combination.zero_is_positive,
        )
    if isinstance(combination, masks.Masks):
        return masks.combine(combination, deltas, start)
    if not combination.active:
        return torch.zeros_like(deltas[0])
    return competitions.balance(
        [deltas[index] for index in combination.active],
        [combination.weights[index] for index in combination.active],
        combination.bounds,
        combination.variant,
    )


__all__ = [
    "Bounds",
    "Clip",
    "Combination",
    "Competition",
    "Decision",
    "Draw",
    "Eager",
    "Election",
    "Keep",
    "Largest",
    "Needs",
    "Outcome",
    "Ranked",
    "Ranks",
    "Relied",
    "Rings",
    "Selected",
    "Shared",
    "Sum",
    "Unified",
    "apply",
    "combine",
    "needs_of",
]
