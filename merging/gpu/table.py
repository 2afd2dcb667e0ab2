"""What a launch needs to know of its tensors, as numbers: built from decisions and outcomes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from merging.gpu.order import FIRST, MOST, bracket, given
from merging.instructions import (
    Bounds,
    Competition,
    Decision,
    Draw,
    Election,
    Keep,
    Outcome,
    Ranks,
    Rings,
    Sum,
    sums,
)
from merging.instructions.draws import limit
from merging.selection import tied

OUT, MODELS = 0, 1  # columns of addresses
NUMEL, INDEX, RINGS = 0, 1, 2  # columns of whole numbers: elements, the index of the first one
# in its run (`selection.tied`; signed), and from here RING for each ring
STRENGTH, BASE_WEIGHT, DIVISOR, WEIGHTS = 0, 1, 2, 3  # columns of factors
RING = 7  # of a ring: two bounds, rank, and the bits that come after the bounds'
DRAW = 3  # of a draw: two keys, limit
ELECTED, NORMALIZED, ZERO_IS_POSITIVE, AVERAGED, EVEN, FINITE = 1, 2, 4, 8, 16, 32
EVENLY = 16  # experts up to which EVEN is known to divide exactly
BOUND = 7  # of an expert that competes: clip bounds and what lies between, threshold and top and
LOW, HIGH, SPAN, THRESHOLD, TOP, REACH, LEAST = range(BOUND)  # what lies between; see `numbers_of`
VARIANTS = {"reference": 1, "nlp": 1, "vision": 2, "pairwise": 3}  # two differ in a number only

Known = Sum | Election | Competition

MarksOf = Callable[[int], memoryview]
"""The marks (`merging.gpu.order`) of an expert's tensor."""


@dataclass(frozen=True)
class Shape:
    """What kernels are compiled for; tensors of one shape are merged in one launch.

    Attributes:
        types: the models' stored types (safetensors' names), base first.
        rings: per expert the number of its rings; 0 keeps everything, -1 draws at random.
        amplified: per expert, False where its one ring has the factor 1.
        combination: a sum of ELECTED (TIES), NORMALIZED, ZERO_IS_POSITIVE, AVERAGED (the base
            has a weight), EVEN (all experts have the weight 1) and FINITE (all deltas are: they
            were sorted).
        output: the output's type.
        variant: how experts compete, of VARIANTS; 0 where they do not.
        active: those that do.
    """

    types: tuple[str, ...]
    rings: tuple[int, ...]
    amplified: tuple[bool, ...]
    combination: int
    output: str
    variant: int = 0
    active: tuple[int, ...] = ()

    @functools.cached_property
    def draws_at(self) -> tuple[int, ...]:
        """Per expert, the first column of its draw's whole numbers; the last is the row's end."""
        return _starts(
            RINGS + RING * self.ring_at[-1], [DRAW * (rings < 0) for rings in self.rings]
        )

    @functools.cached_property
    def factor_at(self) -> tuple[int, ...]:
        """Per expert, the first column of its factors; the last is where a competition's begin."""
        return _starts(WEIGHTS + len(self.rings), [max(abs(rings), 1) for rings in self.rings])

    @property
    def factors(self) -> int:
        """How many factors a row has."""
        return self.factor_at[-1] + BOUND * len(self.active)

    @functools.cached_property
    def ring_at(self) -> tuple[int, ...]:
        """Per expert, its first ring among all; the last is their number."""
        return _starts(0, [max(rings, 0) for rings in self.rings])


def is_known(decisions: Sequence[Decision], outcome: Outcome, numel: int) -> bool:
    """True where the kernels know what to do; torch does the rest."""
    pruned = all(isinstance(one, Keep | Rings | Ranks | Draw) for one in decisions)
    first = _offset(decisions)
    whole = not tied.edges(first, first + numel)  # one bound holds for the whole tensor
    known = outcome.blend is None and isinstance(outcome.combination, Known)
    return pruned and whole and known


def shape_of(
    decisions: Sequence[Decision], outcome: Outcome, types: tuple[str, ...], output: str
) -> Shape:
    """The shape of one tensor's merge."""
    combination = outcome.combination
    assert isinstance(combination, Known)
    rings = tuple(map(_rings, decisions))
    amplified = tuple(getattr(one, "factors", None) != (1.0,) for one in decisions)
    kind = AVERAGED * (outcome.base_weight != 1.0)
    if isinstance(combination, Competition):
        variant = VARIANTS[combination.variant]
        # weights come later than a sum's
        return _shape(types, rings, amplified, kind + EVEN, output, variant, combination.active)
    kind += NORMALIZED * combination.normalize
    if isinstance(combination, Election):
        kind += ELECTED + ZERO_IS_POSITIVE * combination.zero_is_positive
    if combination.weights.count(1.0) == len(decisions) <= EVENLY:
        kind += EVEN
    if all(isinstance(one, Ranks) for one in decisions):
        kind += FINITE
    return _shape(types, rings, amplified, kind, output)


_shape = functools.cache(Shape)  # one object for each: it keeps what it has worked out


def whole_numbers(decisions: Sequence[Decision], numel: int, marks_of: MarksOf) -> list[int]:
    """A tensor's row of whole numbers."""
    first = _offset(decisions) % tied.RUN
    row, draws = [numel, first - (first >= -FIRST) * tied.RUN], []
    for index, one in enumerate(decisions):
        if isinstance(one, Ranks):
            marks = marks_of(index)
            for count in one.counts:
                row += _ring(*bracket(marks, count, numel))
        elif isinstance(one, Rings):
            for cut in one.cuts:
                row += _ring(*given(cut, one.offset))
        elif isinstance(one, Draw):
            draws += [*one.keys, limit(one.density)]
    return row + draws


def factors(decisions: Sequence[Decision], outcome: Outcome) -> list[float]:
    """A tensor's row of factors."""
    combination = outcome.combination
    assert isinstance(combination, Known)
    divisor = 1.0
    if not isinstance(combination, Competition):
        divisor = sums.divisor(combination.weights, combination.normalize)
    row = [outcome.strength, outcome.base_weight, divisor, *combination.weights]
    for one in decisions:
        assert isinstance(one, Keep | Draw | Rings | Ranks)  # see `is_known`
        row += [one.scale] if isinstance(one, Keep | Draw) else one.factors
    if isinstance(combination, Competition):
        row += numbers_of(combination.bounds)
    return row


def numbers_of(bounds: Sequence[Bounds]) -> list[float]:
    """What kernels read of the experts that compete, BOUND each.

    What lies between two bounds is -1 where there is nothing; then a score of LEAST is enough.
    """
    row: list[float] = []
    for one in bounds:
        out_voted = one.top == 0 and one.high > one.low  # as `competitions.survivors`
        row += [one.low, one.high, _between(one.low, one.high)]
        row += [one.threshold, one.top, _between(one.threshold, one.top)]
        row.append(math.inf if out_voted else one.threshold)
    return row


def _between(low: float, high: float) -> float:
    return high - low if high > low else -1.0


def _offset(decisions: Sequence[Decision]) -> int:
    return max((one.offset for one in decisions if isinstance(one, Rings)), default=0)


def _rings(decision: Decision) -> int:
    if isinstance(decision, Keep | Draw):
        return -isinstance(decision, Draw)
    assert isinstance(decision, Rings | Ranks)  # see `is_known`
    return len(decision.factors)


def _ring(bits: int, place: int, last_bits: int, last_place: int, rank: int) -> tuple[int, ...]:
    after = bits + 1 if bits < MOST else MOST
    last_after = last_bits + 1 if last_bits < MOST else MOST
    return (bits, place, last_bits, last_place, rank, after, last_after)


def _starts(first: int, sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(first + sum(sizes[:place]) for place in range(len(sizes) + 1))
