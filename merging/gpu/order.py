"""Every so manyth place in the order of a tensor's changes, so that any cut is nearly known.

Changes are ordered by magnitude, largest first, equal ones by place (`selection.tied`; here its
upper half, less 2**31, as a signed number). A tensor that stays in a GPU's memory is sorted once
and every NEAR-th entry of the order is kept (a mark: 8 bytes). Where the k largest are wanted, all
entries before one mark are among them and none after the next: a merge reads everything once,
whatever the density, and settles the few between two marks afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from merging.errors import NonFinite
from merging.later import torch
from merging.selection import tied

if TYPE_CHECKING:
    from merging.selection.tied import Cut

NEAR = 256
MOST, INFINITE = 0x7FFFFFFF, 0x7F800000
FIRST = -(1 << 31)  # no place is before it


class Bracket(NamedTuple):
    """Where a cut lies. An entry is before a bound if its bits are above the bound's, or equal to
    them and its place is below.

    Attributes:
        first_bits, first_place: what is before this bound is kept.
        last_bits, last_place: what is not before this one is dropped. Between the two are at most
            NEAR entries.
        rank: how many of those are kept.
    """

    first_bits: int
    first_place: int
    last_bits: int
    last_place: int
    rank: int = 0


ALL = Bracket(-1, FIRST, -1, FIRST)
NOTHING = Bracket(MOST, FIRST, MOST, FIRST)


def marks(base: torch.Tensor, expert: torch.Tensor) -> memoryview:
    """The marks of one expert's tensor.

    Args:
        base, expert: (n,) raw values on one device; n < 2**31.

    Returns:
        int32, two for each of the places 0, NEAR, 2 NEAR...: the magnitude's float32 bits, the
        entry's place. The last two stand after all entries.

    Raises:
        NonFinite: a value is NaN or infinite.
    """
    bits = (expert.float() - base.float()).abs_().view(torch.int32)
    if int(bits.max()) >= INFINITE:
        raise NonFinite("a value is NaN or infinite")
    keys = tied.upper_places(0, bits.numel(), bits.device)
    keys |= (MOST - bits).to(torch.int64) << 32  # largest magnitudes first, then lowest places
    keys = torch.sort(keys).values[::NEAR]
    rows = [MOST - (keys >> 32), (keys & (tied.RUN - 1)) + FIRST]
    found = torch.stack([row.to(torch.int32) for row in rows], 1).cpu().numpy()
    last = np.array([[-1, FIRST]], dtype=np.int32)
    return np.concatenate([found, last]).reshape(-1).data


def bracket(marks: memoryview, count: int, numel: int) -> Bracket:
    """Where the cut lies that keeps the `count` largest entries, 0 to numel.

    Args:
        marks: from `marks`.
    """
    if count >= numel:
        return ALL
    if count == 0:
        return NOTHING
    mark, rank = divmod(count, NEAR)
    bits, first, after, last = marks[2 * mark : 2 * mark + 4]
    return Bracket(bits, first, *((after, last) if rank else (bits, first)), rank)


def given(cut: Cut, offset: int) -> Bracket:
    """The bracket of a cut that is known, for a tensor that begins at `offset` of its scope and
    lies in one run of indices (`selection.tied`)."""
    bits = int(np.float32(cut.value).view(np.int32))
    ties = tied.upper_half(cut.stop, offset // tied.RUN)
    bits, place = (bits - 1, FIRST) if ties == tied.RUN else (bits, ties + FIRST)
    return Bracket(bits, place, bits, place)
