"""A tensor per worker thread, each read by the fused loops."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from merging import kernels
from merging.checkpoints import Entry, Family
from merging.engines.eager import Stream, TensorReader
from merging.engines.fused import sizes
from merging.engines.fused.filling import rule_of, take_part
from merging.engines.fused.raw import TYPES
from merging.engines.fused.reader import FusedReader
from merging.engines.fused.spread import FusedSpreadReader
from merging.instructions import (
    Competition,
    Outcome,
)
from merging.kernels.windows import Mapping


def would_run(family: Family, partitions: int) -> bool:
    """True where the fused loops are there, or are worth building. Builds nothing."""
    if len(family.experts) > kernels.MAX_EXPERTS or partitions > kernels.MAX_RINGS:
        return False
    work = sum(entry.numel for entry in family.merged) * len(family.experts)
    return kernels.is_built() or (kernels.can_build() and work >= sizes.WORTH_BUILDING)


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
            self.chunk = self.resident = sizes.TORCH_CHUNK
        self.whole = threading.Lock()  # held by whoever has a whole tensor in memory
        self.keys_bytes = sizes.KEYS_BYTES // self.workers
        self._mappings: dict[Path, Mapping] = {}

    def open(self, entry: Entry) -> TensorReader:
        """The fused reader of one merged tensor."""
        return FusedReader(self, entry)

    def open_spread(self, entry: Entry) -> FusedSpreadReader:
        """The reader of one merged tensor's variance over the experts."""
        return FusedSpreadReader(self, entry)

    def score_histograms(self, sample: np.ndarray, game: Competition) -> list[np.ndarray]:
        """As Stream, without torch."""
        experts = (kernels.Expert * len(sample))()
        rows = [np.ascontiguousarray(row, dtype=np.float32) for row in sample]
        for expert, row in zip(experts, rows, strict=True):
            expert.data, expert.type, expert.scale = row.ctypes.data, TYPES["F32"], 1.0
        take_part(experts, game)
        base = np.zeros(sample.shape[1], dtype=np.float32)
        upper = np.full(len(sample), -1, dtype=np.int32)
        counts = np.zeros((len(sample), 1 << 16), dtype=np.int64)
        kernels.library().amalgam_score_histogram(  # type: ignore[union-attr]
            base.ctypes.data, TYPES["F32"], experts, len(sample),
            ctypes.byref(rule_of(Outcome(game))), 0, base.size, 1, upper.ctypes.data,
            counts.ctypes.data,
        )  # fmt: skip
        return [counts[index] for index in game.active]

    def mapping(self, file: Path) -> Mapping:
        """A file as memory, anew after every so many bytes: the system keeps tables of them.

        Raises:
            OSError: it cannot be mapped.
        """
        with self.lock:
            memory = self._mappings.get(file)
            if memory is None or memory.shown > sizes.MAPPED_BYTES:
                memory = self._mappings[file] = Mapping(file)
            return memory

    def buffer(self, slot: int, size_bytes: int) -> np.ndarray:
        """This worker's byte buffer of a slot, at least `size_bytes` long, kept between tensors."""
        buffers = self.local.__dict__.setdefault("buffers", {})
        if slot not in buffers or buffers[slot].size < size_bytes:
            buffers.pop(slot, None)
            buffers[slot] = np.empty(size_bytes, dtype=np.uint8)
        return buffers[slot]
