"""A pass over a family: what is read in which steps, how far it is, whether it goes on."""

from __future__ import annotations

import threading
import time

from merging.checkpoints import Entry, Family
from merging.engines.eager.progress import Progress, ProgressCallback
from merging.engines.sources import Files, RawTensors
from merging.errors import Cancelled

CHUNK = 1 << 20  # elements per chunk
GPU_CHUNK = 1 << 24  # on a GPU, where a launch costs as much as some 100,000 elements
RESIDENT = 1 << 22  # tensors up to this many elements are kept in float32 between passes
RUN = 64  # elements read in a row where a tensor is sampled


class Work:
    """Reading the merged tensors of a family, with progress and cancel.

    Args:
        family: whose tensors are read.
        device: where the arithmetic happens.
        passes: how often the family will be read, for the progress' total.
        chunk: elements worked on at a time.
        resident: elements of the largest tensor that is kept in float32 between passes.
        source: where raw tensors come from; their files if None.
    """

    def __init__(
        self,
        family: Family,
        *,
        device: str = "cpu",
        passes: int = 1,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
        chunk: int | None = None,
        resident: int | None = None,
        source: RawTensors | None = None,
    ) -> None:
        self.family = family
        self.device = device
        self.chunk = chunk or (CHUNK if device == "cpu" else GPU_CHUNK)
        if resident is None:
            resident = RESIDENT if device == "cpu" else 4 * self.chunk
        self.resident = resident
        self.source = source or Files(device)
        self.total = sum(entry.numel for entry in family.merged) * passes
        self._progress = progress
        self._cancel = cancel
        self._done = 0
        self._started = time.perf_counter()
        self.lock = threading.Lock()

    def advance(self, phase: str, entry: Entry, elements: int) -> None:
        """Records finished work and reports it."""
        with self.lock:
            self._done += elements
            if self._progress is None:
                return
            seconds = time.perf_counter() - self._started
            rest = max(self.total - self._done, 0)
            eta = seconds * rest / self._done if self._done and seconds > 0.05 else None
            rate = 4.0 * self._done / seconds if seconds > 0 else 0.0
            done = min(self._done, self.total)
            layer = entry.place.title
            report = Progress(phase, done, self.total, entry.name, layer, seconds, rate, eta)
            self._progress(report)

    def check_cancelled(self) -> None:
        """Raises Cancelled if a stop was asked for."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled("stopped; nothing was written")
