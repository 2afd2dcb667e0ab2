"""What a launch needs to know of its tensors, as numbers: built from decisions and outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from merging.decisions import Competition, Decision, Draw, Election, Keep, Outcome, Ranks
from merging.gpu.order import Bracket, bracket, given
from merging.methods import linear, random

NUMEL, OUT, MODELS = 0, 1, 2  # columns of whole numbers: elements, addresses
STRENGTH, BASE_WEIGHT, DIVISOR, WEIGHTS = 0, 1, 2, 3  # columns of factors
RING = 6  # whole numbers of a ring: two bounds, rank, strict
DRAW = 3  # of a draw: two keys, limit
ELECTED, NORMALIZED, ZERO_IS_POSITIVE, AVERAGED = 1, 2, 4, 8

MarksOf = Callable[[int], np.ndarray]
"""The marks (`merging.gpu.order`) of an expert's tensor."""


@dataclass(frozen=True)
class Shape:
    """What kernels are compiled for; tensors of one shape are merged in one launch.

    Attributes:
        types: the models' stored types (safetensors' names), base first.
        rings: per expert the number of its rings; 0 keeps everything, -1 draws at random.
        amplified: per expert, False where its one ring has the factor 1.
        combination: a sum of ELECTED (TIES), NORMALIZED, ZERO_IS_POSITIVE and AVERAGED (the base
            has a weight).
        output: the output's type.
    """

    types: tuple[str, ...]
    rings: tuple[int, ...]
    amplified: tuple[bool, ...]
    combination: int
    output: str

    @property
    def rings_at(self) -> int:
        """The first column of the rings' whole numbers, RING of each."""
        return MODELS + len(self.types)

    @property
    def draws_at(self) -> tuple[int, ...]:
        """Per expert, the first column of its draw's whole numbers; the last is the row's end."""
        first = self.rings_at + RING * self.ring_at[-1]
        return _starts(first, [DRAW * (rings < 0) for rings in self.rings])

    @property
    def factor_at(self) -> tuple[int, ...]:
        """Per expert, the first column of its factors; the last is their number."""
        return _starts(WEIGHTS + len(self.rings), [max(abs(rings), 1) for rings in self.rings])

    @property
    def ring_at(self) -> tuple[int, ...]:
        """Per expert, its first ring among all; the last is their number."""
        return _starts(0, [max(rings, 0) for rings in self.rings])


def shape_of(
    decisions: Sequence[Decision], outcome: Outcome, types: tuple[str, ...], output: str
) -> Shape:
    """The shape of one tensor's merge."""
    combination = outcome.combination
    assert not isinstance(combination, Competition)
    kind = NORMALIZED * getattr(combination, "normalize", False)
    if isinstance(combination, Election):
        kind += ELECTED + ZERO_IS_POSITIVE * combination.zero_is_positive
    kind += AVERAGED * (outcome.base_weight != 1.0)
    amplified = tuple(getattr(one, "factors", None) != (1.0,) for one in decisions)
    return Shape(types, tuple(_rings(one) for one in decisions), amplified, kind, output)


def whole_numbers(
    decisions: Sequence[Decision], numel: int, addresses: Sequence[int], marks_of: MarksOf
) -> list[int]:
    """A tensor's row of whole numbers.

    Args:
        addresses: of the output and of the models.
    """
    row, draws = [numel, *addresses], []
    for index, one in enumerate(decisions):
        if isinstance(one, Draw):
            draws += [*one.keys, random.limit(one.density)]
        elif not isinstance(one, Keep):
            for each in _brackets(one, numel, marks_of, index):
                row += [*each.first, *each.last, each.rank, each.strict]
    return row + draws


def factors(decisions: Sequence[Decision], outcome: Outcome) -> list[float]:
    """A tensor's row of factors."""
    combination = outcome.combination
    divisor = linear.divisor(combination.weights, getattr(combination, "normalize", False))
    row = [outcome.strength, outcome.base_weight, divisor, *combination.weights]
    for one in decisions:
        row += [one.scale] if isinstance(one, Keep | Draw) else one.factors
    return row


def _rings(decision: Decision) -> int:
    if isinstance(decision, Keep | Draw):
        return -isinstance(decision, Draw)
    return len(decision.factors)


def _brackets(decision: Decision, numel: int, marks_of: MarksOf, index: int) -> list[Bracket]:
    if isinstance(decision, Ranks):
        marks, strict = marks_of(index), decision.strict
        return [bracket(marks, count, numel, strict=strict) for count in decision.counts]
    return [given(cut, decision.offset) for cut in decision.cuts]


def _starts(first: int, sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(first + sum(sizes[:place]) for place in range(len(sizes) + 1))
