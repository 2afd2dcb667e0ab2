"""What the collecting loop finds of one expert's tensor: the magnitudes inside some brackets, and
which of them a cut through equal ones keeps, see `selection.brackets` and `selection.tied`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from merging.selection.brackets import Bracket, Inside
from merging.selection.tied import STEP, STRIPES, in_stripe, places

SECTION = 1 << 19  # indices whose stripes are counted together, as select.h has it
GROUP = 32  # elements that the loop may write beyond the last, as values.h has it

Buffer = Callable[[int, int], np.ndarray]
"""Memory of a slot, 0 to 2, of at least so many bytes, (n,) uint8, whatever is in it."""

_LANE = np.arange(STRIPES) * pow(STEP, -1, STRIPES) % STRIPES  # of each stripe, turned


class Candidates(NamedTuple):
    """A few entries, among them the one that is looked for.

    Attributes:
        indices: (n,) int64, ascending. Those of the magnitude in question are in order of place.
        nth: so manyth of these it is, from 1 on.
    """

    indices: np.ndarray
    nth: int


class Collected:
    """A pass over one expert's tensor of at most 2**32 entries, piece by piece.

    Args:
        wanted: disjoint brackets, ascending.
        room: magnitudes in each that there is room for.
        numel: entries of the tensor.
        buffer: where they are written.
    """

    def __init__(self, brackets: Sequence[Bracket], room: int, numel: int, buffer: Buffer) -> None:
        self._numel, self._room, size = numel, room, len(brackets)
        self._low, self._high = np.array(brackets, dtype=np.uint32).reshape(size, 2).T.copy()
        self._above, self._size = np.zeros((2, size), dtype=np.int64)
        shape = (size, room + GROUP)
        self._keys, self._indices = (_array(buffer, slot, shape) for slot in (0, 1))
        single = self._low == self._high
        self._row_of = np.cumsum(single) - 1  # of the stripes, per bracket of a single value
        sections = -(-numel // SECTION)
        self._stripes = _array(buffer, 2, (int(single.sum()), sections, 2 * STRIPES))
        self._stripes[:] = 0
        self._lanes = np.zeros((0, 2 * STRIPES), dtype=np.int64)

    def arguments(self) -> tuple[int, ...]:
        """What the loop is given after the size of a piece."""
        return (
            self._low.size,
            self._low.ctypes.data,
            self._high.ctypes.data,
            self._above.ctypes.data,
            self._size.ctypes.data,
            self._room,
            self._keys.ctypes.data,
            self._indices.ctypes.data,
            self._stripes.shape[1],
            self._stripes.ctypes.data,
        )

    def inside(self) -> list[Inside] | None:
        """What lies in each bracket; None where one was too wide."""
        single = self._low == self._high
        sizes = self._size.copy()
        if (sizes > self._room).any():
            return None
        self._lanes = self._stripes.sum(axis=1, dtype=np.int64)
        sizes[single] = self._lanes.sum(axis=1)
        above = self._above.copy()
        for k in reversed(range(sizes.size - 1)):
            if self._high[k] + 1 == self._low[k + 1]:
                above[k] = above[k + 1] + sizes[k + 1]
        return [
            Inside(int(low), int(high), int(over), int(size), keys[:size], indices[:size])
            for low, high, over, size, keys, indices in zip(
                self._low, self._high, above, sizes, self._keys, self._indices, strict=True
            )
        ]

    def candidates(self, bits: int, nth: int) -> Candidates | None:
        """Where the nth of the entries of a magnitude is, by place; None where that was not seen.

        Args:
            bits: of the magnitude, float32.
            nth: from 1 to their number.
        """
        held = np.flatnonzero((self._low <= bits) & (bits <= self._high))
        if not held.size:
            return None
        k = int(held[0])
        if self._low[k] < self._high[k]:
            size = int(self._size[k])
            indices = self._indices[k, :size][self._keys[k, :size] == bits]
            last = indices[np.argpartition(places(indices), nth - 1)[nth - 1]]
            return Candidates(np.array([last], dtype=np.int64), 1)
        row = self._row_of[k]
        stripe, nth = _reached(self._lanes[row].reshape(2, STRIPES).sum(axis=0)[_LANE], nth)
        counts = self._stripes[row].reshape(-1, 2, STRIPES)[:, :, _LANE[stripe]]
        section, nth = _reached(counts.sum(axis=1), nth)
        first = section * SECTION
        return Candidates(in_stripe(stripe, first, min(first + SECTION, self._numel)), nth)


def _array(buffer: Buffer, slot: int, shape: tuple[int, ...]) -> np.ndarray:
    size = 4 * int(np.prod(shape))
    return buffer(slot, size)[:size].view(np.uint32).reshape(shape)


def _reached(counts: np.ndarray, nth: int) -> tuple[int, int]:
    """Among which of some groups the nth entry is, and the how manyth of that group it is."""
    ends = np.cumsum(counts)
    at = int(np.searchsorted(ends, nth))
    return at, nth - int(ends[at] - counts[at])
