"""The engine's fused twin on the CPU: raw tensors in, merged tensors out, several at a time.

Same measurements, same decisions, same bits as `engines.eager` through torch; what differs is
that one C loop does what takes torch a dozen passes, and that worker threads take a tensor each.
Raw tensors are read where they lie: of mapped files a piece at a time is in memory, so memory
does not grow with the model nor, beyond a small constant, with the number of experts.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from merging import kernels
from merging.checkpoints import Entry, Family
from merging.checkpoints.checkpoint import WIDTHS
from merging.declarations.measures import Near, Spread
from merging.engines.eager import RUN as SAMPLED_RUN
from merging.engines.eager import MergedChunk, Profile, Stream, TensorReader
from merging.errors import BadCheckpoint, NonFinite
from merging.instructions import (
    Clip,
    Combination,
    Competition,
    Decision,
    Draw,
    Eager,
    Election,
    Keep,
    Outcome,
    Ranked,
    Relied,
    Rings,
    Selected,
    Shared,
    Sum,
    Unified,
    needs_of,
    sums,
)
from merging.instructions.masks import Masks
from merging.kernels.looks import Looks, pieces_of
from merging.kernels.windows import Mapping, Window, gather, lost
from merging.selection import brackets
from merging.selection.collected import Collected
from merging.selection.statistics import HALF, UPPER, OrderStatistic, statistics
from merging.selection.tied import KEEP_ALL, RUN, Band, Cut, Looked, Parted, edges, place, stops

# Raw bytes of all models that a worker holds at a time: few enough to stay small beside a model,
# and enough that the system seldom has to be asked for more.
PIECE_BYTES = 32 << 20
TORCH_CHUNK = 1 << 17  # elements that steps without loops work on at a time
AT_ONCE = 1 << 19  # elements merged at a time: they are still in the cache when they are written
PASSING_BYTES = 96 << 20  # where nothing is read twice, and no room is needed for what stays
KEYS_BYTES = 256 << 20  # collected magnitudes held at a time, all workers together
STAY_BYTES = 80 << 20  # what a worker keeps mapped of a tensor that it reads twice
MAPPED_BYTES = 4 << 30  # of a file, shown before it is mapped anew
WORTH_BUILDING = 1 << 25  # elements x experts from which compiling the loops pays within one merge
_COMPETITIONS = {"reference": 1, "nlp": 1, "vision": 2, "pairwise": 3}
_KEYS = -1  # the slots of the buffers that hold collected magnitudes go down from here
_PLACES = 1 << 15  # the slots of the places of equal changes go up from here
_MERGED = 1 << 16  # the slot of merged elements
_TABLES, _COUNTS, _NEAR = _MERGED + 1, _MERGED + 2, _MERGED + 3  # of profiles
_LOOKED = 1 << 18  # places of equal entries that a pass has room for
_BLOCK = 1 << 10  # pieces are whole blocks of the loops
_FULL = 1 << 31  # entries after which 32-bit counters are emptied
_NEARLY = np.float32(1.05)  # what a mean may differ from a sample's
_NEAR_SHARE, _NEAR_ROOM = 64, 4096  # entries near a value: one in so many, and so many more
_Held = tuple[int, int, int, "Window | np.ndarray"]
"""First and last element, their address, and what holds them."""
_TYPES = {"F32": 0, "BF16": 1, "F16": 2, "F64": 3}
_SPREAD = 4  # the type of several experts taken as one
_MASKS: dict[type, int] = {Selected: 1, Unified: 2, Relied: 3, Shared: 4}


def would_run(family: Family, partitions: int) -> bool:
    """True where the fused loops are there, or are worth building. Builds nothing."""
    if len(family.experts) > kernels.MAX_EXPERTS or partitions > kernels.MAX_RINGS:
        return False
    work = sum(entry.numel for entry in family.merged) * len(family.experts)
    return kernels.is_built() or (kernels.can_build() and work >= WORTH_BUILDING)


def is_worthwhile(family: Family, partitions: int) -> bool:
    """As `would_run`, and they are there now: built if need be."""
    return would_run(family, partitions) and kernels.library() is not None


def workers() -> int:
    """Tensors worked on at a time."""
    return max(1, min(8, os.cpu_count() or 1))


class FusedStream(Stream):
    """A stream whose readers use the fused loops, a tensor per worker thread."""

    engine = "fused"

    def __init__(self, family: Family, **arguments: Any) -> None:
        super().__init__(family, **arguments)
        self.workers = workers()
        self.local = threading.local()
        if arguments.get("chunk") is None:  # what runs through torch, on every worker
            self.chunk = self.resident = TORCH_CHUNK
        self.whole = threading.Lock()  # held by whoever has a whole tensor in memory
        self.keys_bytes = KEYS_BYTES // self.workers
        self._mappings: dict[Path, Mapping] = {}

    def open(self, entry: Entry) -> TensorReader:
        """The fused reader of one merged tensor."""
        return FusedReader(self, entry)

    def score_histograms(self, sample: np.ndarray, game: Competition) -> list[np.ndarray]:
        """As Stream, without torch."""
        experts = (kernels.Expert * len(sample))()
        rows = [np.ascontiguousarray(row, dtype=np.float32) for row in sample]
        for expert, row in zip(experts, rows, strict=True):
            expert.data, expert.type, expert.scale = row.ctypes.data, _TYPES["F32"], 1.0
        _take_part(experts, game)
        base = np.zeros(sample.shape[1], dtype=np.float32)
        wanted = np.full(len(sample), -1, dtype=np.int32)
        counts = np.zeros((len(sample), 1 << 16), dtype=np.int64)
        kernels.library().amalgam_score_histogram(  # type: ignore[union-attr]
            base.ctypes.data, _TYPES["F32"], experts, len(sample),
            ctypes.byref(_rule(Outcome(game))), 0, base.size, 1, wanted.ctypes.data,
            counts.ctypes.data,
        )  # fmt: skip
        return [counts[index] for index in game.active]

    def mapping(self, file: Path) -> Mapping:
        """A file as memory, anew after every so many bytes: the system keeps tables of them.

        Raises:
            OSError: it cannot be mapped.
        """
        with self.lock:
            known = self._mappings.get(file)
            if known is None or known.shown > MAPPED_BYTES:
                known = self._mappings[file] = Mapping(file)
            return known

    def buffer(self, slot: int, size_bytes: int) -> np.ndarray:
        """This worker's byte buffer of a slot, at least `size_bytes` long, kept between tensors."""
        buffers = self.local.__dict__.setdefault("buffers", {})
        if slot not in buffers or buffers[slot].size < size_bytes:
            buffers.pop(slot, None)
            buffers[slot] = np.empty(size_bytes, dtype=np.uint8)
        return buffers[slot]


class FusedReader(TensorReader):
    """Measures and merges one tensor through the fused loops."""

    stream: FusedStream

    def __init__(self, stream: FusedStream, entry: Entry) -> None:
        super().__init__(stream, entry)
        self._models = stream.family.models
        self._infos = [model.tensors[entry.name] for model in self._models]
        self._types = [_TYPES[info.dtype] for info in self._infos]
        widths = [info.width for info in self._infos]
        self._widths = widths
        self._step = self._piece(PIECE_BYTES)
        self._fits = self._step == entry.numel
        self._loaded: dict[int, _Held] = {}
        self._stays: dict[tuple[int, int], _Held] = {}
        self._room = 0
        self._collected: list[Collected] = []
        self._drawn: dict[tuple[int, Ranked], np.ndarray] = {}

    def _piece(self, size_bytes: int) -> int:
        """Elements of a piece whose raw bytes in all models are about so many."""
        return min(self.numel, max(_BLOCK, size_bytes // sum(self._widths) // _BLOCK * _BLOCK))

    def order_statistics(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]]:
        """As TensorReader. The tensor will be read again: some of it stays mapped."""
        self._room = STAY_BYTES - sum(self._widths) * self._step
        try:
            return self._from_brackets(ranks) or statistics(self.sweep, ranks)
        except NonFinite as error:
            raise self.culprit(error) from None

    def _from_brackets(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]] | None:
        """The same from one pass; None where a bracket missed or would hold too much."""
        self._collected = []
        if self.numel > RUN:
            return None
        samples = None
        if self.numel > brackets.EVERYTHING:
            samples = np.sort(np.abs(self._sampled()).view(np.uint32), axis=1)
        wanted, sizes = self._brackets(ranks, samples)
        if 8 * sum(len(row) * n for row, n in zip(wanted, sizes, strict=True)) > (
            self.stream.keys_bytes
        ):
            return None
        rows = [
            Collected(row, size, self.numel, functools.partial(self._slot, index))
            for index, (row, size) in enumerate(zip(wanted, sizes, strict=True))
        ]
        for start, stop in self._pieces():
            for index, row in enumerate(rows, 1):
                top = self._call(
                    "amalgam_collect", start, stop, self._pointer(index, start, stop),
                    self._types[index], start, stop - start, *row.arguments(),
                )  # fmt: skip
                if top >= brackets.INFINITE:
                    raise NonFinite("a value is NaN or infinite")
        result = []
        for row, asked in zip(rows, ranks, strict=True):
            if (inside := row.inside()) is None:
                return None
            located = [brackets.locate(inside, self.numel, rank, _select) for rank in asked]
            if None in located:
                return None
            result.append([statistic for statistic in located if statistic is not None])
        self._collected = rows
        return result

    def _slot(self, expert: int, slot: int, size: int) -> np.ndarray:
        """This worker's buffer for what is collected of an expert."""
        return self.stream.buffer(_KEYS - 3 * expert - slot, size)

    def _brackets(
        self, ranks: Sequence[Sequence[int]], samples: np.ndarray | None
    ) -> tuple[list[list[brackets.Bracket]], list[int]]:
        """Per expert: disjoint brackets for its ranks, and the room each needs."""
        if samples is None:
            everything = [[(0, brackets.MOST)] if row else [] for row in ranks]
            return everything, [self.numel for _ in ranks]
        wanted = [
            brackets.apart(sample, brackets.brackets(sample, self.numel, row))
            for sample, row in zip(samples, ranks, strict=True)
        ]
        return wanted, [
            max((brackets.expected(sample, self.numel, one) for one in row), default=0)
            for sample, row in zip(samples, wanted, strict=True)
        ]

    def _sampled(self) -> np.ndarray:
        """(E, s) float32: a sample of the deltas, spread evenly over the tensor."""
        stride = brackets.sample_stride(self.numel)
        if self._fits:
            return self._sample(0, self.numel, stride // 2, stride)
        rows = self.blocks(stride, SAMPLED_RUN)
        return rows[1:] - rows[0]

    def blocks(self, one_in: int, size: int) -> np.ndarray:
        """As TensorReader."""
        if self.numel == 0:
            return np.zeros((1 + self.experts, 0), dtype=np.float32)
        run = min(size, self.numel)
        count = (self.numel - run) // (one_in * run) + 1
        rows = [self._gather(model, run, one_in * run, count) for model in range(len(self._infos))]
        return np.stack(rows)

    def _gather(self, model: int, size: int, step: int, count: int) -> np.ndarray:
        """(count * size,) float32: blocks of a model's tensor, `step` elements apart."""
        info, width = self._infos[model], self._widths[model]
        try:
            raw, found = gather(info.file, info.offset, step * width, size * width, count)
        except OSError:
            found = 0
        if found < count:  # reading the next one says what is wrong
            block = memoryview(bytearray(size * width))
            self._models[model].read_into(info, found * step * width, block)
            raise BadCheckpoint(f"tensor {info.name}: {info.file} cannot be read")
        return _as_float32(raw.reshape(-1), info.dtype, slice(None))

    def sweep(
        self, buckets: Sequence[Sequence[int]], decisions: Sequence[Decision] | None = None
    ) -> list[dict[int, np.ndarray]]:
        """As TensorReader."""
        if not _runs(decisions):
            return super().sweep(buckets, decisions)
        wanted = [np.array([_raw_bucket(b) for b in row], dtype=np.int32) for row in buckets]
        raw = [np.zeros((len(row), 1 << 16), dtype=np.int64) for row in buckets]
        for start, stop in self._pieces_of(decisions):
            for index, (row, counts) in enumerate(zip(wanted, raw, strict=True)):
                if row.size and stop > start:
                    expert = self._expert(index, decisions, start, stop)
                    self._call(
                        "amalgam_histogram", start, stop, expert, start, stop - start, row.size,
                        row.ctypes.data, counts.ctypes.data,
                    )  # fmt: skip
        return [
            {bucket: _from_raw(bucket, counts[k]) for k, bucket in enumerate(row)}
            for row, counts in zip(buckets, raw, strict=True)
        ]

    def stops(self, parted: Sequence[Parted]) -> list[int]:
        """As TensorReader. The pass that found the cuts has seen nearly all that is needed."""
        known = [self._last(one) if self._collected else None for one in parted]
        left = iter(
            stops(self.look, [p for p, last in zip(parted, known, strict=True) if last is None])
        )
        return [next(left) if last is None else place(last) + 1 for last in known]

    def _last(self, parted: Parted) -> int | None:
        """The index of the last equal entry that stays; None where it is not known."""
        bits = int(np.float32(parted.value).view(np.uint32))
        seen = self._collected[parted.row].candidates(bits, parted.nth)
        if seen is None:
            return None
        magnitudes = np.abs(self._deltas_at(parted.row, seen.indices))
        return int(seen.indices[magnitudes == np.float32(parted.value)][seen.nth - 1])

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

    def _values(self, model: int, start: int, stop: int, chosen: slice | np.ndarray) -> np.ndarray:
        """Some of a model's entries [start, stop), float32."""
        raw = _bytes_at(self._pointer(model, start, stop), (stop - start) * self._widths[model])
        return _as_float32(raw, self._infos[model].dtype, chosen)

    def look(self, bands: Sequence[Band], first: int = 0) -> list[Looked]:
        """As TensorReader."""
        rows = [[band for band in bands if band.row == row] for row in range(self.experts)]
        looks = [
            Looks(row, _LOOKED, functools.partial(self.stream.buffer, slot))
            for slot, row in enumerate(rows, _PLACES)
            if row
        ]
        found: dict[Band, Looked] = {}
        while looks:
            for start, stop in self._pieces(first):
                for one in looks:
                    model = one.bands[0].row + 1
                    self._call(
                        "amalgam_look", start, stop, self._pointer(model, start, stop),
                        self._types[model], stop - start, ctypes.byref(one.begin(first + start)),
                    )  # fmt: skip
                    one.end(first + start)
            found |= dict(pieces_of(looks))
            looks = [more for one in looks if (more := one.again())]
        return [found[band] for band in bands]

    def score_sweep(
        self, decisions: Sequence[Decision], game: Competition, buckets: Sequence[Sequence[int]]
    ) -> list[dict[int, np.ndarray]]:
        """As TensorReader."""
        if not _runs(decisions):
            return super().score_sweep(decisions, game, buckets)
        most = max(len(row) for row in buckets)
        wanted = np.full((self.experts, most), -2, dtype=np.int32)
        for index, row in zip(game.active, buckets, strict=True):
            wanted[index, : len(row)] = row
        counts = np.zeros((self.experts, most, 1 << 16), dtype=np.int64)
        rule = _rule(Outcome(game))
        for start, stop in self._pieces_of(decisions):
            experts = self._experts(decisions, game, start, stop)
            self._call(
                "amalgam_score_histogram", start, stop, experts, self.experts, ctypes.byref(rule),
                start, stop - start, most, wanted.ctypes.data, counts.ctypes.data,
            )  # fmt: skip
        return [
            {bucket: counts[index, k] for k, bucket in enumerate(row)}
            for index, row in zip(game.active, buckets, strict=True)
        ]

    def profile(
        self, stride: int, first: int, near: Sequence[Sequence[float]] | None = None
    ) -> Profile:
        """As TensorReader."""
        self._step = self._piece(PASSING_BYTES)
        total = Profile.empty(self.experts, 0)
        sums, dots = np.zeros((self.experts, 2)), np.zeros((self.experts, self.experts))
        top, base_l2 = np.zeros(self.experts, dtype=np.uint32), np.zeros(1)
        types = (ctypes.c_int32 * self.experts)(*self._types[1:])
        tables = self._scratch(_TABLES, (self.experts, 2, kernels.TABLE))
        counts = self._scratch(_COUNTS, (self.experts, 2 * HALF))
        tables[:] = counts[:] = 0
        wanted = np.array(near or [[]] * self.experts, dtype=np.float32)
        first_near, last_near = _around(wanted)
        found = np.zeros((self.experts, len(wanted[0])), dtype=np.int64)
        room = self.numel // _NEAR_SHARE + _NEAR_ROOM if found.size else 0
        keys = self._scratch(_NEAR, (*found.shape, room))
        emptied = 0
        for start, stop in self._pieces():
            pointers = (ctypes.c_void_p * self.experts)(
                *(self._pointer(index + 1, start, stop) for index in range(self.experts))
            )
            self._call(
                "amalgam_profile", start, stop, pointers, types, self.experts, stop - start,
                tables.ctypes.data, sums.ctypes.data, top.ctypes.data, dots.ctypes.data,
                base_l2.ctypes.data, found.shape[1], first_near.ctypes.data,
                last_near.ctypes.data, found.ctypes.data, room, keys.ctypes.data,
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
        for index, k in np.ndindex(*found.shape):
            if (size := int(found[index, k])) <= room:
                fine = keys[index, k, :size].copy()
                buckets = slice(int(first_near[index, k]), int(last_near[index, k]) + 1)
                total.near[index].append(_near(total, index, counts[index], buckets, fine))
        return total

    def _scratch(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """This worker's uint32 array of a slot; what is in it stays from before."""
        size = 4 * math.prod(shape)
        return self.stream.buffer(slot, size)[:size].view(np.uint32).reshape(shape)

    def _sample(self, start: int, stop: int, skip: int, stride: int) -> np.ndarray:
        """(E, s) float32: every stride-th delta of [start, stop) from `skip` on."""
        chosen = slice(skip, None, stride)
        base, *rows = [self._values(m, start, stop, chosen) for m in range(len(self._infos))]
        return np.stack([row - base for row in rows])

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

    def pruned_norms(self, expert: int, decision: Decision) -> tuple[float, float]:
        """As TensorReader."""
        if not _runs([decision]):
            return super().pruned_norms(expert, decision)
        sums = np.zeros(2)
        if isinstance(decision, Ranked):
            self._bits(expert, decision, sums)
            return float(sums[0]), float(sums[1])
        for start, stop in self._pieces_of([decision]):
            filled = kernels.Expert()
            self._fill(filled, expert, decision, start, stop)
            self._call(
                "amalgam_pruned_norms", start, stop, ctypes.byref(filled), start, stop - start,
                sums.ctypes.data,
            )  # fmt: skip
        return float(sums[0]), float(sums[1])

    def _bits(self, expert: int, decision: Ranked, sums: np.ndarray | None = None) -> np.ndarray:
        """A bit per entry of a tensor, set where a draw by rank keeps it; worked out once.

        Args:
            sums: (2,) float64, to which |delta| and |kept delta| are added.
        """
        key = expert, replace(decision, scale=1.0)
        if key in self._drawn and sums is None:
            return self._drawn[key]
        bits = np.zeros(-(-self.numel // 8), dtype=np.uint8)
        total = np.zeros(2) if sums is None else sums
        low, high = decision.low, decision.high
        if self.columns == 1:
            low = high = decision.only
        first, second = (word & 0xFFFFFFFF for word in decision.keys)
        for start, stop in self._rows():
            failed = self._call(
                "amalgam_ranked", start, stop, self._pointer(expert + 1, start, stop),
                self._types[expert + 1], start, (stop - start) // self.columns, self.columns, low,
                high, first, second, bits.ctypes.data, total.ctypes.data,
            )  # fmt: skip
            if failed:
                raise MemoryError(f"tensor {self.entry.name}: no memory for one row")
        self._drawn[key] = bits
        return bits

    def _rows(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces of whole rows."""
        step = max(self._step // self.columns, 1) * self.columns
        for start in range(0, self.numel, step):
            self.stream.check_cancelled()
            yield start, min(start + step, self.numel)

    def spread(self, decisions: Sequence[Decision]) -> Spread:
        """As TensorReader."""
        if any(decision != Keep() for decision in decisions):
            return super().spread(decisions)
        return FusedSpreadReader(self.stream, self.entry)

    def energies(self, decisions: Sequence[Decision], cut: Cut) -> np.ndarray:
        """As TensorReader."""
        if not _runs(decisions):
            return super().energies(decisions, cut)
        sums = np.zeros(self.experts)
        self._mask_sums(decisions, Selected((1.0,) * self.experts, cut), sums)
        return sums

    def unified_norms(self, decisions: Sequence[Decision], unified: Unified) -> tuple[float, float]:
        """As TensorReader."""
        if not _runs(decisions):
            return super().unified_norms(decisions, unified)
        sums = np.zeros(2)
        self._mask_sums(decisions, unified, sums)
        return float(sums[0]), float(sums[1])

    def shared_counts(self, decisions: Sequence[Decision], epsilon: float) -> np.ndarray:
        """As TensorReader."""
        if not _runs(decisions):
            return super().shared_counts(decisions, epsilon)
        counts = np.zeros((self.experts, 2), dtype=np.int64)
        self._mask_sums(decisions, Shared((1.0,) * self.experts, epsilon), np.zeros(2), counts)
        return counts

    def _mask_sums(
        self,
        decisions: Sequence[Decision],
        combination: Masks,
        sums: np.ndarray,
        counts: np.ndarray | None = None,
    ) -> None:
        counts = np.zeros(0, dtype=np.int64) if counts is None else counts
        for start, stop in self._pieces_of(decisions):
            if stop > start:
                rule = self._rule(Outcome(combination), start, stop)
                experts = self._experts(decisions, combination, start, stop)
                self._call(
                    "amalgam_mask_sums", start, stop, experts, self.experts, ctypes.byref(rule),
                    start, stop - start, sums.ctypes.data, counts.ctypes.data,
                )  # fmt: skip

    def count_above(self, bounds: Sequence[Sequence[float]]) -> list[list[int]]:
        """As TensorReader."""
        rows = [np.array(row, dtype=np.float32) for row in bounds]
        counts = [np.zeros(row.size, dtype=np.int64) for row in rows]
        for start, stop in self._pieces():
            for index, (row, found) in enumerate(zip(rows, counts, strict=True)):
                if row.size:
                    self._call(
                        "amalgam_count", start, stop, self._pointer(index + 1, start, stop),
                        self._types[index + 1], stop - start, row.size, row.ctypes.data,
                        found.ctypes.data,
                    )  # fmt: skip
        return [[int(count) for count in found] for found in counts]

    def vote_balance(self, decisions: Sequence[Decision], weights: Sequence[float]) -> int:
        """As TensorReader."""
        if not _runs(decisions):
            return super().vote_balance(decisions, weights)
        total = 0
        for start, stop in self._pieces_of(decisions):
            experts = self._experts(decisions, Sum(tuple(weights)), start, stop)
            total += self._call(
                "amalgam_balance", start, stop, experts, self.experts, start, stop - start
            )
        return total

    def merge(
        self, decisions: Sequence[Decision], outcome: Outcome, dtype: str
    ) -> Iterator[MergedChunk]:
        """As TensorReader; through torch where the loops lack a step."""
        if not _runs(decisions, outcome):
            with self.stream.whole if needs_of(decisions, outcome) != "chunk" else nullcontext():
                yield from super().merge(decisions, outcome, dtype)
            return
        for start, stop in self._pieces_of(decisions, AT_ONCE):
            rule = self._rule(outcome, start, stop)
            size = (stop - start) * WIDTHS[dtype]
            values = self.stream.buffer(_MERGED, max(size, 1))[:size]
            drift = np.zeros(2)
            bad = 0
            if stop > start:
                experts = self._experts(decisions, outcome.combination, start, stop)
                bad = self._call(
                    "amalgam_merge", start, stop, experts, self.experts, ctypes.byref(rule),
                    start, stop - start, values.ctypes.data, _TYPES[dtype], drift.ctypes.data,
                )  # fmt: skip
            yield MergedChunk(start, values.data, bad == 0, float(drift[0]), float(drift[1]))

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces that hold whole blocks of a Gram matrix."""
        for start in range(0, self.numel, max(self._step, 1)):
            self.stream.check_cancelled()
            yield start, min(start + self._step, self.numel)

    def _rule(self, outcome: Outcome, start: int, stop: int) -> kernels.Rule:
        """How the experts of a piece combine."""
        rule = _rule(outcome)
        combination = outcome.combination
        if isinstance(combination, Selected) and combination.cut != KEEP_ALL:
            selection = kernels.Expert()
            _fill_rings(selection, Rings((combination.cut,), (1.0,)), start, stop)
            rule.selection = ctypes.pointer(selection)
        return rule

    def _pieces_of(
        self, decisions: Sequence[Decision] | None, most: int = 1 << 62
    ) -> Iterator[tuple[int, int]]:
        """Pieces for some decisions, see `_pieces`; draws by rank are made before the first."""
        for index, decision in enumerate(decisions or ()):
            if isinstance(decision, Ranked):
                self._bits(index, decision)
        return self._pieces(_offset(decisions), most)

    def _pieces(self, offset: int = 0, most: int = 1 << 62) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces inside which every ring's bounds are constant.

        Args:
            offset: index of the tensor's first entry in the scope of the cuts.
            most: elements of a piece.
        """
        stops = [edge - offset for edge in edges(offset, offset + self.numel)]
        for start in range(0, self.numel, max(self._step, 1)):
            stop = min(start + self._step, self.numel)
            inner = (edge for edge in stops if start < edge < stop)
            ends = sorted({start, stop, *inner, *range(start, stop, most)})
            for a, b in itertools.pairwise(ends):
                self.stream.check_cancelled()
                yield a, b

    def _pointer(self, model: int, start: int, stop: int) -> int:
        """Address of element `start` of a model's raw tensor, at hand as far as `stop`."""
        width = self._widths[model]
        found = self._loaded.get(model)
        if found is None or not found[0] <= start <= stop <= found[1]:
            self._loaded.pop(model, None)  # one window at a time, but for those that stay
            low = start - start % self._step if self._step else 0
            if (model, low) not in self._stays:
                high = min(low + self._step, self.numel)
                size = (high - low) * width
                found = (low, high, *self._hold(model, low * width, size))
                if size <= self._room and isinstance(found[3], Window):
                    self._stays[model, low] = found
                    self._room -= size
            else:
                found = self._stays[model, low]
            self._loaded[model] = found
        low, _, address, _held = found
        return address + (start - low) * width

    def _hold(self, model: int, skip: int, size: int) -> tuple[int, Window | np.ndarray]:
        """Address of `size` bytes of a model's tensor from byte `skip` on, and what holds them.

        The file itself is mapped; where that cannot be, its bytes are read into a buffer.
        """
        info = self._infos[model]
        position = info.offset + skip
        if size and position % info.width == 0:
            try:
                window = Window(self.stream.mapping(info.file), position, size)
            except OSError:
                pass  # reading says what is wrong, if anything is
            else:
                return window.address, window
        raw = self.stream.buffer(model, max(size, 1))[:size]
        self._models[model].read_into(info, skip, raw.data)
        return raw.ctypes.data, raw

    def _call(self, name: str, start: int, stop: int, *arguments: Any) -> Any:
        """Calls a fused loop with the base's address and type first.

        Raises:
            BadCheckpoint: a file ended, or its disk failed, while it was read.
        """
        function = getattr(kernels.library(), name)
        result = function(self._pointer(0, start, stop), self._types[0], *arguments)
        self._check_lost()
        return result

    def _check_lost(self) -> None:
        """Raises what reading the tensor's last byte raises, where a file ended meanwhile."""
        if not lost():
            return
        for model, info in zip(self._models, self._infos, strict=True):
            model.read_into(info, info.size_bytes - 1, memoryview(bytearray(1)))
        raise BadCheckpoint(
            f"tensor {self.entry.name}: its file changed, or its disk failed, while it was read; "
            "wait until the models are complete and run again"
        )

    def _experts(
        self, decisions: Sequence[Decision], combination: Combination, start: int, stop: int
    ) -> Any:
        experts = (kernels.Expert * self.experts)()
        for index, decision in enumerate(decisions):
            self._fill(experts[index], index, decision, start, stop)
            if not isinstance(combination, Eager) and combination.weights:
                experts[index].weight = combination.weights[index]
        if isinstance(combination, Competition):
            _take_part(experts, combination)
        if isinstance(combination, Relied):
            for expert, threshold in zip(experts, combination.thresholds, strict=True):
                expert.threshold = threshold
        return experts

    def _expert(
        self, index: int, decisions: Sequence[Decision] | None, start: int, stop: int
    ) -> kernels.Expert:
        expert = kernels.Expert()
        self._fill(expert, index, decisions[index] if decisions else Keep(), start, stop)
        return expert

    def _fill(
        self, expert: kernels.Expert, index: int, decision: Decision, start: int, stop: int
    ) -> None:
        expert.data = self._pointer(index + 1, start, stop)
        expert.type = self._types[index + 1]
        expert.scale = 1.0
        if isinstance(decision, Clip):
            expert.clipped, expert.limit = 1, decision.limit
            return
        if isinstance(decision, Ranked):
            expert.bits = self._bits(index, decision).ctypes.data
            expert.scale = decision.scale
            return
        if isinstance(decision, Keep):
            expert.scale = decision.scale
        elif isinstance(decision, Draw):
            expert.random = 1
            expert.key0, expert.key1 = (key & 0xFFFFFFFF for key in decision.keys)
            expert.keep = round(decision.density * (1 << 24))
            expert.scale = decision.scale
        else:
            assert isinstance(decision, Rings)  # this engine's readers are given cuts
            _fill_rings(expert, decision, start, stop)


class FusedSpreadReader(FusedReader):
    """The variance over the experts, read as if it were the change of one: see values.h."""

    def __init__(self, stream: FusedStream, entry: Entry) -> None:
        super().__init__(stream, entry)
        self._count = self.experts
        self.experts = 1
        self._own_types = self._types
        self._types = [self._types[0], _SPREAD]
        self._spread: kernels.Spread | None = None

    def _pointer(self, model: int, start: int, stop: int) -> int:
        if model == 0:
            return super()._pointer(0, start, stop)
        spread = kernels.Spread(self._count)
        for index in range(self._count):
            spread.types[index] = self._own_types[index + 1]
            spread.data[index] = super()._pointer(index + 1, start, stop)
        self._spread = spread  # lives as long as the loop that is called with it
        return ctypes.addressof(spread)

    def differing(self) -> int:
        """As SpreadReader."""
        count = 0
        for start, stop in self._pieces():
            spread = self._pointer(1, start, stop)
            count += self._call("amalgam_differing", start, stop, spread, stop - start)
        return count

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
            raw = _bytes_at(address, (stop - start) * self._widths[model])
            values.append(_as_float32(raw, info.dtype, here))
        return _variance(np.stack(values[1:]) - values[0])


def _variance(deltas: np.ndarray) -> np.ndarray:
    """As `masks.variance`. deltas: (E, n) float32."""
    mean, squares = np.zeros(deltas.shape[1]), np.zeros(deltas.shape[1])
    for index, delta in enumerate(deltas.astype(np.float64)):
        apart = delta - mean
        mean += apart / (index + 1)
        squares += apart * (delta - mean)
    return (squares / len(deltas)).astype(np.float32)


def _fill_rings(expert: kernels.Expert, rings: Rings, start: int, stop: int) -> None:
    ((_, _, bounds),) = rings.pieces(start, stop)
    expert.rings = len(bounds)
    expert.parted = any(bound.ties for bound in bounds)
    expert.first = (rings.offset + start) % RUN
    for k, (bound, factor) in enumerate(zip(bounds, rings.factors, strict=True)):
        expert.lower[k], expert.upper[k], expert.ties[k] = bound
        expert.factor[k] = factor


def _runs(decisions: Sequence[Decision] | None, outcome: Outcome | None = None) -> bool:
    """True where the loops have every step of a tensor's merge."""
    steps: list[object] = [*(decisions or ())]
    if outcome is not None:
        steps += [outcome.combination, outcome.blend]
    return not any(
        isinstance(step, Eager) or (isinstance(step, Ranked) and step.by_chance) for step in steps
    )


def _offset(decisions: Sequence[Decision] | None) -> int:
    """Where the tensor begins in the scope of its cuts."""
    return max((one.offset for one in decisions or () if isinstance(one, Rings)), default=0)


def _take_part(experts: Any, game: Competition) -> None:
    """Marks the active experts, with their bounds."""
    for index, bounds in zip(game.active, game.bounds, strict=True):
        expert = experts[index]
        expert.active, expert.low, expert.high = 1, bounds.low, bounds.high
        expert.threshold, expert.top = bounds.threshold, bounds.top


def _select(keys: np.ndarray, place: int) -> tuple[np.uint32, int, int]:
    """As `brackets.select`."""
    counts = np.zeros(2, dtype=np.int64)
    address = counts.ctypes.data
    key = kernels.library().amalgam_select(  # type: ignore[union-attr]
        keys.ctypes.data, keys.size, place, int(keys.min()), int(keys.max()), address, address + 8
    )
    return np.uint32(key), int(counts[0]), int(counts[1])


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


def _bytes_at(address: int, size: int) -> np.ndarray:
    """(size,) uint8 over memory that the caller holds."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def _as_float32(raw: np.ndarray, dtype: str, chosen: slice | np.ndarray) -> np.ndarray:
    """Some elements of a raw tensor, float32. bfloat16 is the upper half of a float32."""
    if dtype == "BF16":
        return (raw.view(np.uint16)[chosen].astype(np.uint32) << 16).view(np.float32)
    kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    return raw.view(kinds[dtype])[chosen].astype(np.float32)


def _rule(outcome: Outcome) -> kernels.Rule:
    combination: Combination = outcome.combination
    rule = kernels.Rule(
        zero_is_positive=1, divisor=1.0, strength=outcome.strength, base_weight=outcome.base_weight
    )
    if isinstance(combination, Election):
        rule.ties, rule.normalize = 1, int(combination.normalize)
        rule.zero_is_positive = int(combination.zero_is_positive)
    elif isinstance(combination, Sum):
        rule.divisor = sums.divisor(combination.weights, combination.normalize)
    elif isinstance(combination, Selected | Unified | Relied | Shared):
        _fill_masks(rule, combination)
    else:
        assert isinstance(combination, Competition)  # see `_runs`
        rule.competition = _COMPETITIONS[combination.variant]
    return rule


def _fill_masks(rule: kernels.Rule, combination: Masks) -> None:
    rule.masks = _MASKS[type(combination)]
    if isinstance(combination, Unified):
        rule.task, rule.scale = combination.task, combination.scale
        rule.zero_is_negative = int(combination.zero_is_negative)
    elif isinstance(combination, Relied):
        rule.task = -1 if combination.task is None else combination.task
        rule.agreement = combination.agreement
    elif isinstance(combination, Shared):
        rule.epsilon = combination.epsilon


def _raw_bucket(bucket: int) -> int:
    return -1 if bucket == UPPER else bucket - HALF


def _from_raw(bucket: int, counts: np.ndarray) -> np.ndarray:
    """Magnitudes have no sign: their upper buckets are the upper half of the keys'."""
    if bucket != UPPER:
        return counts
    return np.concatenate([np.zeros(HALF, dtype=np.int64), counts[:HALF]])
