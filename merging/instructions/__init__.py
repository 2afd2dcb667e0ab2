"""What engines run, as data, and what it means in torch.

An instruction holds numbers only. Methods emit instructions and know no engine; engines execute
them and know no method: the torch functions here, the C loops of `merging.kernels` and the GPU
kernels of `merging.gpu` give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from merging.instructions import competitions, elections, sums
from merging.instructions.competitions import Bounds, Competition
from merging.instructions.elections import Election
from merging.instructions.pruning import Decision, Draw, Keep, Ranks, Rings, apply
from merging.instructions.sums import Sum
from merging.later import torch

Combination = Sum | Election | Competition


@dataclass(frozen=True)
class Outcome:
    """How a merged delta meets the base: base * base_weight + delta * strength."""

    combination: Combination
    strength: float = 1.0
    base_weight: float = 1.0


def combine(combination: Combination, deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """The merged delta of one chunk. deltas: pruned, each (n,) float32. Returns (n,) float32."""
    if isinstance(combination, Sum):
        return sums.weighted_sum(deltas, combination.weights, combination.normalize)
    if isinstance(combination, Election):
        return elections.elect_and_merge(
            deltas,
            combination.weights,
            normalize=combination.normalize,
            zero_is_positive=combination.zero_is_positive,
        )
    if not combination.active:
        return torch.zeros_like(deltas[0])
    return competitions.balance(
        [deltas[index] for index in combination.active],
        [combination.weights[index] for index in combination.active],
        combination.bounds,
        combination.variant,
    )


__all__ = [
    "Bounds", "Combination", "Competition", "Decision", "Draw", "Election", "Keep", "Outcome",
    "Ranks", "Rings", "Sum", "apply", "combine",
]  # fmt: skip
