"""What a launch needs to know of its tensors, as numbers: built from decisions and outcomes.

Tensors decided alike share one `Setting`; whatever differs between the tensors of a launch (how
many entries each ring keeps, addresses) becomes an array at once for all of them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from merging.gpu import ranking
from merging.gpu.order import FIRST, bound_of
from merging.instructions import (
    Bounds,
    Clip,
    Competition,
    Decision,
    Draw,
    Election,
    Keep,
    Largest,
    Outcome,
    Ranked,
    Ranks,
    Rings,
    Selected,
    Sum,
    sums,
)
from merging.instructions.draws import limit
from merging.selection import tied
from merging.selection.tied import KEEP_ALL

OUT, MODELS = 0, 1  # columns of addresses; after the models comes what is known of every expert:
# its marks, or its ranks; then the marks of variances, where they select
NUMEL, INDEX, RINGS = 0, 1, 2  # columns of whole numbers: elements, the index of the first one
# in its run (`selection.tied`; signed), and from here RING for each ring
STRENGTH, BASE_WEIGHT, DIVISOR, WEIGHTS = 0, 1, 2, 3  # columns of factors
RING, RANK = 5, 4  # of a ring's bracket: what is before the first bound is kept (bits, place), what
# is not before the last one is dropped; how many of those between are kept. Where marks tell the
# bracket, RANK holds how many entries are kept in all
DRAW = 3  # of a draw: two keys, limit
RANK_DRAW = 8  # of a draw by rank: two keys, low, span and divisor (see `drawing_kernels`), shift;
FRACTION = (
    6  # how far the limit moves with the upper half of a rank, with so many bits of fraction,
)
# rounded down; and the limit is above what that says by less than so much
ELECTED, NORMALIZED, ZERO_IS_POSITIVE, AVERAGED, EVEN, FINITE = 1, 2, 4, 8, 16, 32
SELECTED, WEIGHED = 64, 128
DRAWN, CLIPPED = -1, -2  # instead of a number of rings
RANKED, RESCALED, CHANCED = (
    -3,
    -4,
    -5,
)  # likewise draws by rank: times a factor that is known, times
# one that follows from the sums of what stays, divided by their chances
BITS = 8  # draws by rank whose bits a byte holds
EVENLY = 16  # experts up to which EVEN is known to divide exactly
BOUND = 7  # of an expert that competes: clip bounds and what lies between, threshold and top and
LOW, HIGH, SPAN, THRESHOLD, TOP, REACH, LEAST = range(BOUND)  # what lies between; see `numbers_of`
VARIANTS = {"reference": 1, "nlp": 1, "vision": 2, "pairwise": 3}  # two differ in a number only

Combined = Sum | Election | Competition | Selected

_AMOUNTS: dict[type, Callable[[Any], Any]] = {
    Keep: attrgetter("scale"),
    Draw: attrgetter("scale"),
    Ranked: attrgetter("scale"),
    Rings: attrgetter("factors"),
    Ranks: attrgetter("factors"),
    Clip: attrgetter("limit"),
}
"""The factors of decisions that have a kernel."""

_WITHOUT_RINGS: dict[type, int] = {Keep: 0, Draw: DRAWN, Clip: CLIPPED, Ranked: RANKED}


@dataclass(frozen=True)
class Shape:
    """What kernels are compiled for; tensors of one shape are merged in one launch.

    Attributes:
        types: the models' stored types (safetensors' names), base first.
        rings: per expert the number of its rings; 0 keeps everything, DRAWN draws at random,
            RANKED, RESCALED and CHANCED by rank, CLIPPED limits sizes.
        amplified: per expert, False where its one ring has the factor 1.
        located: per expert, True where marks tell its brackets.
        aligned: the tensors begin at multiples of STRIPES in their scope (`selection.tied`).
        combination: a sum of ELECTED (TIES), NORMALIZED, ZERO_IS_POSITIVE, AVERAGED (the base
            has a weight), EVEN (all experts have the weight 1), FINITE (all deltas are: they
            were sorted), SELECTED (SCE) and WEIGHED (by what is selected).
        output: the output's type.
        variant: how experts compete, of VARIANTS; 0 where they do not.
        active: those that do.
        selects: variances have a cut, which is a ring after all others.
    """

    types: tuple[str, ...]
    rings: tuple[int, ...]
    amplified: tuple[bool, ...]
    located: tuple[bool, ...]
    aligned: bool
    combination: int
    output: str
    variant: int = 0
    active: tuple[int, ...] = ()
    selects: bool = False

    @functools.cached_property
    def draws_at(self) -> tuple[int, ...]:
        """Per expert, the first column of its draw's whole numbers; the last is the row's end."""
        sizes = [DRAW * (rings == DRAWN) + RANK_DRAW * (rings <= RANKED) for rings in self.rings]
        return _starts(RINGS + RING * self.ring_at[-1], sizes)

    @functools.cached_property
    def bit_at(self) -> tuple[int, ...]:
        """Per expert, the bit that tells whether its draw by rank keeps an entry; -1 for those that
        have none."""
        bits = [rings in (RANKED, RESCALED) for rings in self.rings]
        return tuple(sum(bits[:e]) if own else -1 for e, own in enumerate(bits))

    @functools.cached_property
    def planes_at(self) -> tuple[int, ...]:
        """Per expert that is divided by chances, which of what is read its ranks are: the models
        come first, then the word of bits if there is one; -1 for others."""
        own = [rings == CHANCED for rings in self.rings]
        first = len(self.types) + (max(self.bit_at) >= 0)
        return tuple(first + 2 * sum(own[:e]) if one else -1 for e, one in enumerate(own))

    @property
    def by_rank(self) -> tuple[bool, ...]:
        """Per expert, True where its ranks are needed."""
        return tuple(rings <= RANKED for rings in self.rings)

    @property
    def rescaled(self) -> list[int]:
        """The experts whose factor follows from the sums of what stays."""
        return [e for e, rings in enumerate(self.rings) if rings == RESCALED]

    @functools.cached_property
    def factor_at(self) -> tuple[int, ...]:
        """Per expert, the first column of its factors; the last is where a competition's begin."""
        return _starts(WEIGHTS + len(self.rings), [max(rings, 1) for rings in self.rings])

    @property
    def factors(self) -> int:
        """How many factors a row has."""
        return self.factor_at[-1] + BOUND * len(self.active)

    @functools.cached_property
    def ring_at(self) -> tuple[int, ...]:
        """Per expert, its first ring among all; the last is the number of rings."""
        *starts, end = _starts(0, [max(rings, 0) for rings in self.rings])
        return (*starts, end + self.selects)


class Setting(NamedTuple):
    """What tensors that are decided alike share.

    Attributes:
        factors: a row of the table.
    """

    shape: Shape
    factors: tuple[float, ...]


def setting(
    decisions: Sequence[Decision],
    outcome: Outcome,
    numel: int,
    types: tuple[str, ...],
    output: str,
    columns: int = 1,
) -> Setting | None:
    """A tensor's setting, one object for all that are decided alike; None where the kernels do not
    know what to do, and torch does it.

    Args:
        columns: entries of a row.
    """
    if outcome.blend is not None or not isinstance(outcome.combination, Combined):
        return None
    kinds = tuple(map(type, decisions))
    if isinstance(outcome.combination, Selected) and outcome.combination.cut != KEEP_ALL:
        if not isinstance(outcome.combination.cut, Largest):
            return None
        common = replace(outcome.combination, cut=_SOME)
        outcome = replace(outcome, combination=common)
    if not _AMOUNTS.keys() >= set(kinds):
        return None
    first, codes = 0, tuple([_WITHOUT_RINGS.get(kind, 0) for kind in kinds])
    if Ranked in kinds:
        if columns > ranking.WIDEST:
            return None
        codes = tuple(map(_code, decisions, codes))
    if Rings in kinds:
        first = _offset(decisions)
        if tied.edges(first, first + numel):  # one bound holds for the whole tensor
            return None
    amounts = tuple([_AMOUNTS[kind](one) for kind, one in zip(kinds, decisions, strict=True)])
    return _setting(kinds, codes, amounts, first % tied.STRIPES == 0, outcome, types, output)


@functools.lru_cache(maxsize=1 << 14)
def _setting(
    kinds: tuple[type, ...],
    codes: tuple[int, ...],
    amounts: tuple[Any, ...],
    aligned: bool,
    outcome: Outcome,
    types: tuple[str, ...],
    output: str,
) -> Setting:
    combination = outcome.combination
    assert isinstance(combination, Combined)  # see `setting`
    located = tuple(kind is Ranks for kind in kinds)
    rows = [one if isinstance(one, tuple) else (one,) for one in amounts]
    both = zip(kinds, codes, rows, strict=True)
    rings = tuple(code if kind in _WITHOUT_RINGS else len(row) for kind, code, row in both)
    amplified = tuple(one != (1.0,) for one in amounts)
    what = AVERAGED * (outcome.base_weight != 1.0)
    game: tuple[Any, ...] = ()
    divisor, own = 1.0, []
    weights: tuple[float, ...] | None = combination.weights
    if isinstance(combination, Selected):
        selects = combination.cut != KEEP_ALL
        what += SELECTED + EVEN + WEIGHED * (weights is None)
        game = 0, (), selects
        divisor = combination.least  # nothing else is divided by
    elif isinstance(combination, Competition):
        what += EVEN  # weights come later than a sum's
        game = VARIANTS[combination.variant], combination.active
        own = numbers_of(combination.bounds)
    else:
        what += NORMALIZED * combination.normalize + FINITE * all(located)
        what += EVEN * (combination.weights.count(1.0) == len(kinds) <= EVENLY)
        divisor = sums.divisor(combination.weights, combination.normalize)
    if isinstance(combination, Election):
        what += ELECTED + ZERO_IS_POSITIVE * combination.zero_is_positive
    weights = (0.0,) * len(kinds) if weights is None else weights
    factors = [outcome.strength, outcome.base_weight, divisor, *weights]
    return Setting(
        _shape(types, rings, amplified, located, aligned, what, output, *game),
        (*factors, *(factor for row in rows for factor in row), *own),
    )


_SOME = Largest(0)  # stands for any number: how many differs between tensors that are decided alike
_shape = functools.cache(Shape)  # one object for each: it keeps what it has worked out


def whole_numbers(
    shape: Shape,
    numels: Sequence[int],
    decisions: Sequence[Sequence[Decision]],
    columns: Sequence[int] = (),
    counts: Sequence[int] = (),
) -> np.ndarray:
    """The whole numbers of some tensors of one shape.

    Args:
        numels, decisions: of every tensor.
        columns: entries of a row of every tensor, where draws are by rank.
        counts: how many entries of each the variance selects, where it does.

    Returns:
        (tensors, columns) int32. Of rings whose brackets marks tell, RANK alone is filled in.
    """
    table = np.zeros((len(numels), shape.draws_at[-1]), dtype=np.int32)
    table[:, NUMEL] = numels
    table[:, INDEX] = 0
    if shape.selects:
        table[:, RINGS + RING * (shape.ring_at[-1] - 1) + RANK] = counts
    for expert, (rings, ring) in enumerate(zip(shape.rings, shape.ring_at, strict=False)):
        own: list[Any] = [row[expert] for row in decisions]
        if rings == DRAWN:
            start = shape.draws_at[expert]
            rows = [(*one.keys, limit(one.density)) for one in own]
            table[:, start : start + DRAW] = rows
            continue
        if rings <= RANKED:
            start = shape.draws_at[expert]
            table[:, start : start + RANK_DRAW] = list(map(_by_rank, own, columns))
            continue
        start, stop = (RINGS + RING * column for column in (ring, ring + rings))
        if shape.located[expert]:
            table[:, start + RANK : stop : RING] = [one.counts for one in own]
        elif rings > 0:
            table[:, INDEX] = [_signed(one.offset) for one in own]
            table[:, start:stop] = [
                [number for cut in one.cuts for number in _bracket(*bound_of(cut, one.offset))]
                for one in own
            ]
    return table


def factors(settings: Sequence[Setting]) -> np.ndarray:
    """The factors of some tensors of one shape, (tensors, columns) float32."""
    return np.array([one.factors for one in settings], dtype=np.float32)


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


def _code(decision: Decision, code: int) -> int:
    if not isinstance(decision, Ranked):
        return code
    return CHANCED if decision.by_chance else RESCALED if decision.rescaled else RANKED


def _by_rank(drawn: Ranked, columns: int) -> tuple[int, ...]:
    """RANK_DRAW numbers."""
    if columns == 1:
        return (*drawn.keys, drawn.only, 0, 1, 0, 0, 1)
    span, divisor, shift = drawn.high - drawn.low, 2 * (columns - 1), ranking.shift(columns)
    step = (span << 8 + FRACTION) // (divisor << shift)  # below 2**23
    most = (step >> FRACTION) + 2 + (1 << 8 - FRACTION) + 1  # a step, and what is rounded down
    return (*drawn.keys, drawn.low, span, divisor, shift, step, most)


def _offset(decisions: Sequence[Decision]) -> int:
    return max((one.offset for one in decisions if isinstance(one, Rings)), default=0)


def _signed(offset: int) -> int:
    """The index inside its run, as a signed number of 32 bits."""
    first = offset % tied.RUN
    return first - tied.RUN if first >= -FIRST else first


def _bracket(bits: int, place: int) -> tuple[int, ...]:
    """The bracket of a cut that is known: nothing lies inside."""
    return (bits, place, bits, place, 0)


def _starts(first: int, sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(first + sum(sizes[:place]) for place in range(len(sizes) + 1))
