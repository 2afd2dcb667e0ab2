"""Which of many equal changes stay, where a cut goes through them.

Changes between bfloat16 checkpoints take a handful of magnitudes, so the cut nearly always lies in
a crowd of equal ones. Those with the lowest index would be the first rows of a matrix: the first
heads. Here every index belongs to one of 512 stripes, and of equal changes those of the lowest
stripes stay. Of 512 neighbours each is in a stripe of its own, and those of the lowest stripes are
spread over them evenly. Every block of 512 begins elsewhere, at steps of the golden ratio (Knuth,
The Art of Computer Programming, volume 3, section 6.4, "Fibonacci hashing"), so that the columns of
a matrix are treated alike, too. In the one stripe that a cut goes through, the first blocks stay:
at most one in 512 of the equal changes. That follows from the index alone, so chunks, threads,
engines and devices agree; and one pass that counts equal changes by stripe tells where a cut goes.

A place is 64 bits: 9 of the stripe, 23 of the block, then which run of 2**32 indices it is from, so
that no two indices share one. Inside such a run the upper half alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from merging.later import torch

STRIPES = 512
STEP = 297  # odd: every stripe comes once in a block. Its multiples are spread over 512 evenly: the
# partial quotients of 512 / 297 are small, and of any 16 to 256 neighbours each set of the lowest
# stripes holds its share within 3
MULTIPLIER = 0x9E3779B1  # 2**32 over the golden ratio
BLOCK_BITS = 23
RUN = 1 << 32
STRIPE = 1 << (BLOCK_BITS + 32)  # places of one
END = 1 << 64
_COLLECTED = 1 << 12  # up to here all places are looked at, however many are wanted
_ERRORS = 6.0  # standard errors of a random draw; places are spread more evenly


class Band(NamedTuple):
    """Equal entries whose places are looked at.

    Attributes:
        row: which of several rows (experts).
        value: the magnitude they share.
        low, high: places from `low` to below `high`.
    """

    row: int
    value: float
    low: int
    high: int


Looked = tuple[int, np.ndarray]
"""Of a band: how many of the equal entries have a place below `low`, and the places in
[low, high), (n,) uint64 in any order."""

Look = Callable[[Sequence[Band]], list[Looked]]
"""One pass over all rows, for some bands."""

Stops = Callable[[Sequence["Parted"]], list[int]]
"""The places below which as many entries lie as are kept, see `stops`."""


@dataclass
class Parted:
    """Equal entries that a cut parts, and what is known so far of the place where.

    Attributes:
        row, value: as of Band.
        nth: so many of them are kept.
        low, high: the place of the last one kept lies in [low, high).
        below, inside: entries whose places lie below `low`, and in [low, high).
    """

    row: int
    value: float
    nth: int
    inside: int
    below: int = 0
    low: int = 0
    high: int = END

    def guess(self, errors: float) -> Band:
        """Where the place is to be expected, within some standard errors."""
        low, high = self.low, self.high
        if self.inside > _COLLECTED:
            share = (self.nth - self.below - 0.5) / self.inside
            error = (errors * math.sqrt(self.inside * share * (1 - share)) + 64) / self.inside
            first, last = max(share - error, 0.0), min(share + error, 1.0)
            low, high = (self.low + int((self.high - self.low) * end) for end in (first, last))
            # whole stripes: inside one, all places may be among the lowest
            low, high = max(low & -STRIPE, self.low), min(-(-high & -STRIPE), self.high)
        return Band(self.row, self.value, low, high)

    def learn(self, band: Band, looked: Looked) -> int | None:
        """The place below which the entries kept lie; None where the band missed it."""
        before, in_band = looked
        nth = self.nth - before
        if 0 < nth <= in_band.size:
            return int(np.partition(in_band, nth - 1)[nth - 1]) + 1
        if nth <= 0:
            self.high, self.inside = band.low, before - self.below
        else:
            passed = before + in_band.size
            self.inside -= passed - self.below
            self.low, self.below = band.high, passed
        return None


@dataclass(frozen=True)
class Cut:
    """Which entries are kept: those above `value`, and of those equal to it the ones whose place
    is below `stop`.

    Attributes:
        value: bound on |delta|, float32-representable; 0 with `stop` END keeps all, inf none.
        stop: 0 (no tie is kept) to END (all are).
        count: how many entries other than 0 are kept; None where that was not counted.
    """

    value: float
    stop: int
    count: int | None = field(default=None, compare=False)


class Bound(NamedTuple):
    """A cut inside one run of indices.

    Attributes:
        lower, upper: entries of at least `lower` are kept where the upper half of their place is
            below `ties`, the others from `upper` on. The two are equal where no tie is parted.
        ties: 0 <= ties < 2**32.
    """

    lower: float
    upper: float
    ties: int


KEEP_ALL = Cut(0.0, END)
KEEP_NONE = Cut(math.inf, 0, 0)


def place(index: int) -> int:
    """The place of a flat index, in [0, END)."""
    run, index = divmod(index, RUN)
    block, lane = divmod(index, STRIPES)
    stripe = STEP * (lane + turn(block)) % STRIPES
    return (stripe << BLOCK_BITS | block) << 32 | run


def turn(block: int) -> int:
    """The lane at which a block begins: its first index is in the stripe STEP * turn % STRIPES."""
    return block * MULTIPLIER % RUN >> BLOCK_BITS


def places(indices: np.ndarray) -> np.ndarray:
    """The places of some flat indices, (n,) int64 or uint64. Returns (n,) uint64."""
    index = indices.astype(np.uint64)
    low = index & np.uint64(RUN - 1)
    block = low // np.uint64(STRIPES)
    stripe = (low + _turns(block)) * np.uint64(STEP) % np.uint64(STRIPES)
    upper = stripe << np.uint64(BLOCK_BITS) | block
    return upper << np.uint64(32) | index >> np.uint64(32)


def upper_places(start: int, stop: int, device: torch.device | str) -> torch.Tensor:
    """The upper halves of the places of indices [start, stop), (stop - start,) int64."""
    index = torch.arange(start, stop, dtype=torch.int64, device=device) & (RUN - 1)
    block = index // STRIPES
    turns = ((block * MULTIPLIER) & (RUN - 1)) >> BLOCK_BITS
    return ((index + turns) * STEP & (STRIPES - 1)) << BLOCK_BITS | block


def in_stripe(stripe: int, start: int, stop: int) -> np.ndarray:
    """The indices of a stripe in [start, stop), one of every block, (n,) int64.

    Args:
        start: a multiple of STRIPES; both in [0, RUN].
    """
    blocks = np.arange(start // STRIPES, -(-stop // STRIPES), dtype=np.int64)
    first = stripe * pow(STEP, -1, STRIPES)
    lanes = (first - _turns(blocks.astype(np.uint64)).astype(np.int64)) % STRIPES
    indices = STRIPES * blocks + lanes
    return indices[indices < stop]


def _turns(blocks: np.ndarray) -> np.ndarray:
    """As `turn`, (n,) uint64."""
    return (blocks * np.uint64(MULTIPLIER) & np.uint64(RUN - 1)) >> np.uint64(BLOCK_BITS)


def edges(start: int, stop: int) -> list[int]:
    """Where a new run begins inside indices [start, stop)."""
    return list(range((start // RUN + 1) * RUN, stop, RUN))


def bound(cut: Cut, run: int) -> Bound:
    """What a cut says of the indices run * 2**32 and on, to the next such run."""
    ties = upper_half(cut.stop, run)
    above = float(np.nextafter(np.float32(cut.value), np.float32(np.inf)))
    if 0 < ties < RUN:
        return Bound(cut.value, above, ties)
    only = cut.value if ties else above
    return Bound(only, only, 0)


def upper_half(stop: int, run: int) -> int:
    """The number below which the upper half of a place must be, for the place to be below `stop`,
    in one run of indices. In [0, 2**32]."""
    return min((stop >> 32) + (run < stop % RUN), RUN)


def stops(look: Look, parted: Sequence[Parted]) -> list[int]:
    """The places below which as many entries lie as are kept, each in [1, END].

    Places are spread so evenly that one pass over the neighbourhoods of those to be expected is
    nearly always enough. Where it is not they widen: a wrong guess costs a pass, never an entry.
    """
    result: dict[int, int] = {}
    errors = _ERRORS
    while missing := [index for index in range(len(parted)) if index not in result]:
        bands = [parted[index].guess(errors) for index in missing]
        for index, band, looked in zip(missing, bands, look(bands), strict=True):
            if (stop := parted[index].learn(band, looked)) is not None:
                result[index] = stop
        errors *= 8
    return [result[index] for index in range(len(parted))]


def between(equal: np.ndarray, low: int, high: int) -> Looked:
    """What a band tells of the places of all its equal entries, (n,) uint64."""
    ordered = equal[equal < np.uint64(min(high, END - 1))] if high < END else equal
    below = int(np.count_nonzero(equal < np.uint64(low))) if low < END else equal.size
    return below, ordered[ordered >= np.uint64(low)] if low < END else equal[:0]
