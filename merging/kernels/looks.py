"""What passes of the fused loops see of equal changes, see `selection.tied`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from merging import kernels
from merging.selection.tied import RUN, Band, Looked, upper_half

Buffer = Callable[[int], np.ndarray]
"""Memory of at least so many bytes, (n,) uint8, whatever is in it."""


class Looks:
    """A pass over one expert's tensor, piece by piece, for some bands.

    Args:
        bands: of one row.
        room: places of each that there is room for.
        buffer: where they are written.
    """

    def __init__(self, bands: Sequence[Band], room: int, buffer: Buffer) -> None:
        self.bands = bands
        self._buffer, self._room = buffer, room
        size = len(bands)
        self._values = np.array([band.value for band in bands], dtype=np.float32)
        self._limits = np.zeros((size, 2), dtype=np.uint64)
        self._below, self._inside = np.zeros((2, size), dtype=np.int64)
        self._totals = np.zeros(size, dtype=np.int64)
        self._places = buffer(4 * size * self._room).view(np.uint32)
        self._parts: list[list[np.ndarray]] = [[] for _ in bands]

    def begin(self, first: int) -> kernels.Bands:
        """What the loop is given for a piece that begins at an index and ends within its run."""
        run = first // RUN
        for k, band in enumerate(self.bands):
            self._limits[k] = upper_half(band.low, run), upper_half(band.high, run)
        self._inside[:] = 0
        return kernels.Bands(
            len(self.bands),
            first % RUN,
            self._values.ctypes.data,
            self._limits.ctypes.data,
            self._below.ctypes.data,
            self._inside.ctypes.data,
            self._room,
            self._places.ctypes.data,
        )

    def end(self, first: int) -> None:
        """Takes what the loop saw in that piece."""
        self._totals += self._inside
        for k, parts in enumerate(self._parts):
            size = min(int(self._inside[k]), self._room)
            upper = self._places[k * self._room : k * self._room + size].astype(np.uint64)
            parts.append((upper << np.uint64(32)) | np.uint64(first // RUN))

    def result(self) -> list[Looked | None]:
        """Per band what was seen; None where there were more places than room for them."""
        rows = [np.concatenate([np.zeros(0, dtype=np.uint64), *parts]) for parts in self._parts]
        return [
            (int(below), row) if row.size == total else None
            for below, row, total in zip(self._below, rows, self._totals, strict=True)
        ]

    def again(self) -> Looks | None:
        """The same pass with room for all; None where there was enough."""
        if all(row is not None for row in self.result()):
            return None
        return Looks(self.bands, int(self._totals.max()), self._buffer)


def pieces_of(looks: Iterable[Looks]) -> list[tuple[Band, Looked]]:
    """What some passes saw whole."""
    return [
        (band, looked)
        for one in looks
        for band, looked in zip(one.bands, one.result(), strict=True)
        if looked is not None
    ]
