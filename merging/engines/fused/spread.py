"""The variance over the experts, read as if it were the change of one."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

from merging import kernels
from merging.checkpoints import Entry
from merging.engines.eager import RUN as SAMPLED_RUN
from merging.engines.fused.raw import SPREAD, as_float32, bytes_at
from merging.engines.fused.reader import FusedReader
from merging.errors import NonFinite
from merging.selection import brackets
from merging.selection.tied import RUN

if TYPE_CHECKING:
    from merging.engines.fused.stream import FusedStream


class FusedSpreadReader(FusedReader):
    """The variance over the experts, read as if it were the change of one: see values.h."""

    def __init__(self, stream: FusedStream, entry: Entry) -> None:
        super().__init__(stream, entry)
        self._count = self.experts
        self.experts = 1
        self._own_types = self._types
        self._types = [self._types[0], SPREAD]
        self._spread: kernels.Spread | None = None
        self._energy: np.ndarray | None = None  # summed by loops, where it is there
        self._most = math.inf

    def _pointer(self, model: int, start: int, stop: int) -> int:
        if model == 0:
            return super()._pointer(0, start, stop)
        spread = kernels.Spread(self._count)
        for index in range(self._count):
            spread.types[index] = self._own_types[index + 1]
            spread.data[index] = super()._pointer(index + 1, start, stop)
        if self._energy is not None:
            spread.energy = self._energy.ctypes.data
        self._spread = spread  # lives as long as the loop that is called with it
        return ctypes.addressof(spread)

    def differing(self, share: float = 0.0) -> int:
        """As SpreadReader. The pass collects what lies about the cut of a share, too."""
        if share and (total := self._collect_share(share)) is not None:
            return total
        count = 0
        for start, stop in self._pieces():
            spread = self._pointer(1, start, stop)
            count += self._call("amalgam_differing", start, stop, spread, stop - start)
        return count

    def most_energy(self) -> float:
        """As SpreadReader."""
        return self._most

    def _collect_share(self, share: float) -> int | None:
        """Entries that differ; None where not all could be collected."""
        if self.numel > RUN:
            return None
        self._room = self._staying()
        bracket_row, size = [(0, 0), (1, brackets.MOST)], self.numel
        if (samples := self._magnitudes()) is not None:
            bracket_row = brackets.of_share(samples[0], self.numel, share)
            size = max(brackets.expected(samples[0], self.numel, one) for one in bracket_row)
        self._energy = np.zeros(1)
        try:
            if not self._collect([bracket_row], [size]):
                return None
        except NonFinite as error:
            raise self.culprit(error) from None
        finally:
            energy, self._energy = float(self._energy[0]), None
        self._most = energy
        inside = self._collected[0].inside()
        return None if inside is None else self.numel - inside[0].size

    def _sampled(self) -> np.ndarray:
        stride = brackets.sample_stride(self.numel)
        rows = self.blocks(stride, SAMPLED_RUN)
        return _variance(rows[1:] - rows[0])[None]

    def _deltas_at(self, expert: int, indices: np.ndarray) -> np.ndarray:
        rows = [np.zeros(0, dtype=np.float32)]
        types, self._types = self._types, self._own_types
        try:
            for start, stop in self._pieces():
                first, last = np.searchsorted(indices, [start, stop])
                if first < last:
                    rows.append(self._variances(start, stop, indices[first:last] - start))
        finally:
            self._types = types
        return np.concatenate(rows)

    def _variances(self, start: int, stop: int, here: np.ndarray) -> np.ndarray:
        values = []
        for model, info in enumerate(self._infos):
            address = super()._pointer(model, start, stop)
            raw = bytes_at(address, (stop - start) * self._widths[model])
            values.append(as_float32(raw, info.dtype, here))
        return _variance(np.stack(values[1:]) - values[0])


def _variance(deltas: np.ndarray) -> np.ndarray:
    """As `masks.variance`. deltas: (E, n) float32."""
    mean, squares = np.zeros(deltas.shape[1]), np.zeros(deltas.shape[1])
    for index, delta in enumerate(deltas.astype(np.float64)):
        apart = delta - mean
        mean += apart / (index + 1)
        squares += apart * (delta - mean)
    return (squares / len(deltas)).astype(np.float32)
