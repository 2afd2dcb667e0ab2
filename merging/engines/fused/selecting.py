"""Order statistics of one tensor's changes, and where cuts part equal ones."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import numpy as np

from merging import kernels
from merging.engines.eager import RUN as SAMPLED_RUN
from merging.engines.fused import sizes
from merging.engines.fused.raw import RawReader
from merging.errors import NonFinite
from merging.kernels.looks import Looks, pieces_of
from merging.selection import brackets
from merging.selection.collected import Collected
from merging.selection.statistics import OrderStatistic, statistics
from merging.selection.tied import RUN, Band, Looked, Parted, place, stops

_LOOKED = 1 << 18  # places of equal entries that a pass has room for


class SelectingReader(RawReader):
    """Finds cuts."""

    def order_statistics(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]]:
        """As TensorReader. The tensor will be read again: some of it stays mapped."""
        self._room = self._staying()
        try:
            return (
                self._located(ranks) or self._from_brackets(ranks) or statistics(self.sweep, ranks)
            )
        except NonFinite as error:
            raise self.culprit(error) from None

    def _staying(self) -> int:
        """Bytes of a tensor that stay mapped, beside the piece at hand."""
        return sizes.STAY_BYTES - sum(self._widths) * self._step

    def _from_brackets(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]] | None:
        """The same from one pass; None where a bracket missed or would hold too much."""
        self._collected = []
        if self.numel > RUN:
            return None
        bracket_rows, sizes = self._brackets(ranks, self._magnitudes())
        return self._located(ranks) if self._collect(bracket_rows, sizes) else None

    def _magnitudes(self) -> np.ndarray | None:
        """(E, s) uint32, ascending: bits of sampled magnitudes; None of a tensor so small that all
        are collected."""
        if self.numel <= brackets.EVERYTHING:
            return None
        return np.sort(np.abs(self._sampled()).view(np.uint32), axis=1)

    def _collect(
        self, bracket_rows: Sequence[Sequence[brackets.Bracket]], sizes: Sequence[int]
    ) -> bool:
        """One pass that collects what lies in some brackets, with the room each row's need; False
        where that would be too much.

        Raises:
            NonFinite: a change holds NaN or infinity.
        """
        self._collected = []
        if 8 * sum(len(row) * n for row, n in zip(bracket_rows, sizes, strict=True)) > (
            self.stream.keys_bytes
        ):
            return False
        rows = [
            Collected(row, size, self.numel, functools.partial(self._slot, index))
            for index, (row, size) in enumerate(zip(bracket_rows, sizes, strict=True))
        ]
        for start, stop in self._pieces():
            for index, row in enumerate(rows, 1):
                top = self._call(
                    "amalgam_collect", start, stop, self._pointer(index, start, stop),
                    self._types[index], start, stop - start, *row.arguments(),
                )  # fmt: skip
                if top >= brackets.INFINITE:
                    raise NonFinite("a value is NaN or infinite")
        self._collected = rows
        return True

    def _located(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]] | None:
        """Order statistics among what was collected; None, and all that forgotten, where one is
        not there."""
        rows, self._collected = self._collected, []
        result = []
        for row, asked in zip(rows, ranks, strict=bool(rows)):
            if (inside := row.inside()) is None:
                return None
            located = [brackets.locate(inside, self.numel, rank, _select) for rank in asked]
            if None in located:
                return None
            result.append([statistic for statistic in located if statistic is not None])
        self._collected = rows
        return result or None

    def _slot(self, expert: int, slot: int, size: int) -> np.ndarray:
        """This worker's buffer for what is collected of an expert."""
        return self.stream.buffer(sizes.KEYS - 3 * expert - slot, size)

    def _brackets(
        self, ranks: Sequence[Sequence[int]], samples: np.ndarray | None
    ) -> tuple[list[list[brackets.Bracket]], list[int]]:
        """Per expert: disjoint brackets for its ranks, and the room each needs."""
        if samples is None:
            everything = [[(0, brackets.MOST)] if row else [] for row in ranks]
            return everything, [self.numel for _ in ranks]
        bracket_rows = [
            brackets.apart(sample, brackets.brackets(sample, self.numel, row))
            for sample, row in zip(samples, ranks, strict=True)
        ]
        return bracket_rows, [
            max((brackets.expected(sample, self.numel, one) for one in row), default=0)
            for sample, row in zip(samples, bracket_rows, strict=True)
        ]

    def _sampled(self) -> np.ndarray:
        """(E, s) float32: a sample of the deltas, spread evenly over the tensor."""
        stride = brackets.sample_stride(self.numel)
        if self._fits:
            return self._sample(0, self.numel, stride // 2, stride)[1:]
        rows = self.blocks(stride, SAMPLED_RUN)
        return rows[1:] - rows[0]

    def stops(self, parted: Sequence[Parted]) -> list[int]:
        """As TensorReader. The pass that found the cuts has seen nearly all that is needed."""
        lasts = [self._last(one) if self._collected else None for one in parted]
        others = iter(
            stops(self.look, [p for p, last in zip(parted, lasts, strict=True) if last is None])
        )
        return [next(others) if last is None else place(last) + 1 for last in lasts]

    def _last(self, parted: Parted) -> int | None:
        """The index of the last equal entry that stays; None where it is not known."""
        bits = int(np.float32(parted.value).view(np.uint32))
        candidates = self._collected[parted.row].candidates(bits, parted.nth)
        if candidates is None:
            return None
        magnitudes = np.abs(self._deltas_at(parted.row, candidates.indices))
        return int(candidates.indices[magnitudes == np.float32(parted.value)][candidates.nth - 1])

    def _deltas_at(self, expert: int, indices: np.ndarray) -> np.ndarray:
        """An expert's changes at some ascending indices, (n,) float32."""
        rows = []
        for start, stop in self._pieces():
            first, last = np.searchsorted(indices, [start, stop])
            if first < last:
                here = indices[first:last] - start
                base, other = (self._values(model, start, stop, here) for model in (0, expert + 1))
                rows.append(other - base)
        return np.concatenate([np.zeros(0, dtype=np.float32), *rows])

    def look(self, bands: Sequence[Band], first: int = 0) -> list[Looked]:
        """As TensorReader."""
        rows = [[band for band in bands if band.row == row] for row in range(self.experts)]
        looks = [
            Looks(row, _LOOKED, functools.partial(self.stream.buffer, slot))
            for slot, row in enumerate(rows, sizes.PLACES)
            if row
        ]
        by_band: dict[Band, Looked] = {}
        while looks:
            for start, stop in self._pieces(first):
                for one in looks:
                    model = one.bands[0].row + 1
                    self._call(
                        "amalgam_look", start, stop, self._pointer(model, start, stop),
                        self._types[model], stop - start, ctypes.byref(one.begin(first + start)),
                    )  # fmt: skip
                    one.end(first + start)
            by_band |= dict(pieces_of(looks))
            looks = [more for one in looks if (more := one.again())]
        return [by_band[band] for band in bands]

    def count_above(self, bounds: Sequence[Sequence[float]]) -> list[list[int]]:
        """As TensorReader."""
        rows = [np.array(row, dtype=np.float32) for row in bounds]
        counts = [np.zeros(row.size, dtype=np.int64) for row in rows]
        for start, stop in self._pieces():
            for index, (row, row_counts) in enumerate(zip(rows, counts, strict=True)):
                if row.size:
                    self._call(
                        "amalgam_count", start, stop, self._pointer(index + 1, start, stop),
                        self._types[index + 1], stop - start, row.size, row.ctypes.data,
                        row_counts.ctypes.data,
                    )  # fmt: skip
        return [[int(count) for count in row_counts] for row_counts in counts]


def _select(keys: np.ndarray, place: int) -> tuple[np.uint32, int, int]:
    """As `brackets.select`."""
    counts = np.zeros(2, dtype=np.int64)
    address = counts.ctypes.data
    key = kernels.library().amalgam_select(  # type: ignore[union-attr]
        keys.ctypes.data, keys.size, place, int(keys.min()), int(keys.max()), address, address + 8
    )
    return np.uint32(key), int(counts[0]), int(counts[1])
