"""Every so manyth place in the order of a tensor's changes, so that any cut is nearly known.

Changes are ordered by magnitude, largest first, equal ones by place (`selection.tied`; here its
upper half, less 2**31, as a signed number). A tensor that stays in a GPU's memory is sorted once
and every NEAR-th entry of the order is kept there (a mark: 8 bytes). Where the k largest are
wanted, all entries before one mark are among them and none after the next: a merge reads everything
once, whatever the density, and settles the few between two marks afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from merging.later import torch
from merging.selection import tied

if TYPE_CHECKING:
    from merging.selection.tied import Cut

NEAR = 256
MOST, INFINITE = 0x7FFFFFFF, 0x7F800000
FIRST = -(1 << 31)  # no place is before it


class Bound(NamedTuple):
    """A point in the order. An entry is before it if its bits are above the bound's, or equal to
    them and its place is below."""

    bits: int
    place: int


def marks(base: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    """The marks of one expert's tensor. Nothing waits for the device.

    Args:
        base, expert: (n,) raw values on one device; n < 2**31.

    Returns:
        int32 on that device, a `Bound` for each of the places 0, NEAR, 2 NEAR...: the magnitude's
        float32 bits, the entry's place. The last one stands after all entries. Where a change is
        not finite, the bits of the first are INFINITE or more.
    """
    return marks_of((expert.float() - base.float()).abs_())


def marks_of(magnitudes: torch.Tensor) -> torch.Tensor:
    """The marks of some magnitudes, (n,) float32, 0 or more; as `marks`."""
    bits = magnitudes.view(torch.int32)
    keys = tied.upper_places(0, bits.numel(), bits.device)
    keys |= (MOST - bits).to(torch.int64) << 32  # largest magnitudes first, then lowest places
    keys = torch.sort(keys).values[::NEAR]
    rows = [MOST - (keys >> 32), (keys & (tied.RUN - 1)) + FIRST]
    flat = torch.stack([row.to(torch.int32) for row in rows], 1).flatten()
    return torch.cat([flat, flat.new_tensor([-1, FIRST])])


def bound_of(cut: Cut, offset: int) -> Bound:
    """A cut that is known as a bound, for a tensor that begins at `offset` of its scope and lies in
    one run of indices (`selection.tied`)."""
    bits = int(np.float32(cut.value).view(np.int32))
    ties = tied.upper_half(cut.stop, offset // tied.RUN)
    return Bound(bits - 1, FIRST) if ties == tied.RUN else Bound(bits, ties + FIRST)
