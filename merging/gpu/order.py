"""Every so manyth place in the order of a tensor's changes, so that any cut is nearly known.

Changes are ordered by magnitude, largest first, equal ones by index. A tensor that stays in a
GPU's memory is sorted once and every NEAR-th place is kept (a mark: 16 bytes). Where the k
largest are wanted, all entries before one mark are among them and none after the next: a merge
reads everything once, whatever the density, and settles the few between two marks afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from merging.errors import NonFinite
from merging.later import torch

if TYPE_CHECKING:
    from merging.selection import Cut

NEAR = 256
MOST, INFINITE = 0x7FFFFFFF, 0x7F800000


class Bracket(NamedTuple):
    """Where a cut lies. An entry is before a bound if its bits are above the bound's, or equal to
    them and its index is below.

    Attributes:
        first_bits, first_index: what is before this bound is kept.
        last_bits, last_index: what is not before this one is dropped. Between the two are at most
            NEAR entries.
        rank: how many of those are kept.
        strict: of those the one after is the cut, and what equals it is dropped as well.
    """

    first_bits: int
    first_index: int
    last_bits: int
    last_index: int
    rank: int = 0
    strict: bool = False


ALL = Bracket(-1, 0, -1, 0)
NOTHING = Bracket(MOST, 0, MOST, 0)


def marks(base: torch.Tensor, expert: torch.Tensor) -> memoryview:
    """The marks of one expert's tensor.

    Args:
        base, expert: (n,) raw values on one device; n < 2**31.

    Returns:
        int32, four for each of the places 0, NEAR, 2 NEAR...: the magnitude's float32 bits, the
        index, and how many of the next and of the last NEAR places have the same bits. The last
        four stand after all entries.

    Raises:
        NonFinite: a value is NaN or infinite.
    """
    bits = (expert.float() - base.float()).abs_().view(torch.int32)
    bits, index = torch.sort(bits, descending=True, stable=True)
    if int(bits[0]) >= INFINITE:
        raise NonFinite("a value is NaN or infinite")
    count = bits.numel()
    at = torch.arange(0, count, NEAR, device=bits.device)
    value = bits[at]
    falling = -bits  # searchsorted wants an ascending order
    begin = torch.searchsorted(falling, -value)
    end = torch.searchsorted(falling, -value, right=True)
    rows = [value, index[at], (end - at).clamp(max=NEAR), (at - begin).clamp(max=NEAR)]
    found = torch.stack([row.to(torch.int32) for row in rows], 1).cpu().numpy()
    last = np.array([[-1, 0, 0, 0]], dtype=np.int32)
    return np.concatenate([found, last]).reshape(-1).data


def bracket(marks: memoryview, count: int, numel: int, *, strict: bool = False) -> Bracket:
    """Where the cut lies that keeps the `count` largest entries.

    Args:
        marks: from `marks`.
        count: 0 to numel; with `strict` also below, which keeps nothing.
        strict: the entry after those is the cut, and what equals it is dropped as well.
    """
    if count >= numel:
        return ALL
    if count < 0 or (count == 0 and not strict):
        return NOTHING
    place, rank = divmod(count, NEAR)
    bits, index, run, _, after, last_index, _, back = marks[4 * place : 4 * place + 8]
    if not strict:
        return Bracket(bits, index, *((after, last_index) if rank else (bits, index)), rank)
    if after == bits or rank < run:
        return Bracket(bits, 0, bits, 0)
    if rank >= NEAR - back:
        return Bracket(after, 0, after, 0)
    return Bracket(bits, MOST, after, 0, rank - run, strict=True)


def given(cut: Cut, offset: int) -> Bracket:
    """The bracket of a cut that is known; its ties end at an index of a scope that began at
    `-offset`."""
    bits = int(np.float32(cut.value).view(np.int32))
    index = min(max(cut.tie_stop - offset, 0), MOST)
    return Bracket(bits, index, bits, index)
