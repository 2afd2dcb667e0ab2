"""What a sketch needs of a tensor, in one pass."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import numpy as np

from merging import kernels
from merging.declarations.measures import Near
from merging.engines.eager import Profile
from merging.engines.fused import sizes
from merging.engines.fused.raw import RawReader
from merging.errors import NonFinite
from merging.selection.statistics import HALF

_FULL = 1 << 31  # entries after which 32-bit counters are emptied
_NEARLY = np.float32(1.05)  # what a mean may differ from a sample's


_NEAR_SHARE, _NEAR_ROOM = 64, 4096  # entries near a value: one in so many, and so many more


class ProfilingReader(RawReader):
    """Profiles."""

    def profile(
        self, stride: int, first: int, near: Sequence[Sequence[float]] | None = None
    ) -> Profile:
        """As TensorReader."""
        self._step = self._piece(sizes.PASSING_BYTES)
        total = Profile.empty(self.experts, 0)
        sums, dots = np.zeros((self.experts, 2)), np.zeros((self.experts, self.experts))
        top, base_l2 = np.zeros(self.experts, dtype=np.uint32), np.zeros(1)
        types = (ctypes.c_int32 * self.experts)(*self._types[1:])
        tables = self._scratch(sizes.TABLES, (self.experts, 2, kernels.TABLE))
        counts = self._scratch(sizes.COUNTS, (self.experts, 2 * HALF))
        tables[:] = counts[:] = 0
        bounds = np.array(near or [[]] * self.experts, dtype=np.float32)
        first_near, last_near = _around(bounds)
        inside = np.zeros((self.experts, len(bounds[0])), dtype=np.int64)
        room = self.numel // _NEAR_SHARE + _NEAR_ROOM if inside.size else 0
        keys = self._scratch(sizes.NEAR, (*inside.shape, room))
        emptied = 0
        for start, stop in self._pieces():
            pointers = (ctypes.c_void_p * self.experts)(
                *(self._pointer(index + 1, start, stop) for index in range(self.experts))
            )
            self._call(
                "amalgam_profile", start, stop, pointers, types, self.experts, stop - start,
                tables.ctypes.data, sums.ctypes.data, top.ctypes.data, dots.ctypes.data,
                base_l2.ctypes.data, inside.shape[1], first_near.ctypes.data,
                last_near.ctypes.data, inside.ctypes.data, room, keys.ctypes.data,
            )  # fmt: skip
            if stop - emptied > _FULL or stop == self.numel:
                if emptied:
                    counts = counts.astype(np.int64)
                for half in range(2):
                    counts += tables[:, half, : 2 * HALF]
                tables[:], emptied = 0, stop
            total.sample.append(self._sample(start, stop, (first - start) % stride, stride))
        total.nonzero = self.numel - counts[:, 0].astype(np.int64)
        counts[:, 0] = 0  # of the smallest bucket only zeros have no lower bits
        _keep_occupied(total, counts)
        total.l1, total.l2 = sums[:, 0], sums[:, 1]
        total.largest = top.view(np.float32).astype(np.float64)
        total.dots = np.triu(dots, 1) + np.triu(dots, 1).T + np.diag(sums[:, 1])
        total.base_l2 = float(base_l2[0])
        for index, k in np.ndindex(*inside.shape):
            if (size := int(inside[index, k])) <= room:
                fine = keys[index, k, :size].copy()
                buckets = slice(int(first_near[index, k]), int(last_near[index, k]) + 1)
                total.near[index].append(_near(total, index, counts[index], buckets, fine))
        return total

    def _scratch(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """This worker's uint32 array of a slot; what is in it stays from before."""
        size = 4 * math.prod(shape)
        return self.stream.buffer(slot, size)[:size].view(np.uint32).reshape(shape)

    def l1_norms(self) -> list[float]:
        """As TensorReader."""
        norms = np.zeros(self.experts)
        for start, stop in self._pieces():
            for index in range(self.experts):
                self._call(
                    "amalgam_norm", start, stop, self._pointer(index + 1, start, stop),
                    self._types[index + 1], stop - start, norms[index:].ctypes.data,
                )  # fmt: skip
        return norms.tolist()

    def gram(self) -> np.ndarray:
        """As TensorReader."""
        count = 1 + self.experts
        lower = np.zeros((count, count))
        types = (ctypes.c_int32 * self.experts)(*self._types[1:])
        for start, stop in self._blocks():
            pointers = (ctypes.c_void_p * self.experts)(
                *(self._pointer(index + 1, start, stop) for index in range(self.experts))
            )
            self._call(
                "amalgam_gram", start, stop, pointers, types, self.experts, stop - start,
                lower.ctypes.data,
            )  # fmt: skip
        if not np.isfinite(lower).all():
            raise self.culprit(NonFinite("a value is NaN or infinite"))
        return np.tril(lower) + np.tril(lower, -1).T


def _around(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Buckets of upper bits around some values, (the first, the last) of each, uint16."""
    bounds = np.stack([values / _NEARLY, values * _NEARLY]).astype(np.float32)
    first, last = np.minimum(bounds, np.finfo(np.float32).max).view(np.uint32) >> 16
    return first.astype(np.uint16), last.astype(np.uint16)


def _near(
    profile: Profile, expert: int, counts: np.ndarray, buckets: slice, fine: np.ndarray
) -> Near:
    """What lies in some buckets of upper bits.

    Args:
        counts: (65536,) the expert's, as of `_keep_occupied`.
        fine: bits of the entries there that are not coarse.
    """
    after = max(buckets.stop - profile.first, 0)
    above = int(profile.histogram[expert, after:].sum())
    return Near(buckets.start, above, counts[buckets].astype(np.int64), fine)


def _keep_occupied(profile: Profile, counts: np.ndarray) -> None:
    """Sets a profile's histograms to the buckets that have entries.

    Args:
        counts: (E, 65536), coarse entries by upper bits, then the others.
    """
    both = counts[:, :HALF] + counts[:, HALF:]
    occupied = np.flatnonzero(both.any(axis=0))
    here = slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0)
    profile.first = here.start
    profile.histogram = both[:, here].astype(np.int64)
    profile.coarse = counts[:, here].astype(np.int64)
