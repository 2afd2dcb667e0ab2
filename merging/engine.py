"""Drives pure functions over the chunks of a family: reading, up-casting, progress, cancel.

Nothing here knows a method. A `TensorReader` hands out float32 chunks of one tensor: the base's,
and each expert's delta. Small tensors stay in memory between passes; large ones are read again,
so memory is bounded by the chunk, not by the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from merging.checkpoints import Checkpoint, Entry, Family
from merging.errors import Cancelled, DeviceUnavailable, NonFinite

CHUNK = 1 << 20  # elements per chunk
RESIDENT = 1 << 22  # tensors up to this many elements are kept in float32 between passes


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        phase: "measure", "merge", "verify" or "scan".
        done, total: elements, all passes counted.
        tensor, layer: what is being worked on.
        seconds: since the start.
        rate_bytes: bytes of float32 work per second so far.
        eta_s: estimated seconds left, None before it can be told.
    """

    phase: str
    done: int
    total: int
    tensor: str
    layer: int | None
    seconds: float
    rate_bytes: float
    eta_s: float | None


ProgressCallback = Callable[[Progress], None]


def pick_device(wanted: str = "auto") -> torch.device:
    """The device for the arithmetic. Raises DeviceUnavailable if the one asked for is absent."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("device cuda: no CUDA GPU is present; use --device cpu or auto")
    if wanted not in ("cpu", "cuda"):
        raise DeviceUnavailable(f"device {wanted}: not known; valid: auto, cpu, cuda")
    return torch.device(wanted)


class Stream:
    """The merged tensors of a family as chunks, with progress and cancel.

    Args:
        family: whose tensors are read.
        device: where the arithmetic happens.
        passes: how often the family will be read, for the progress' total.
    """

    def __init__(
        self,
        family: Family,
        *,
        device: torch.device | None = None,
        passes: int = 1,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self.family = family
        self.device = device or torch.device("cpu")
        self.chunk = chunk
        self.total = sum(entry.numel for entry in family.merged) * passes
        self.layers = 1 + max((e.place.layer or 0 for e in family.merged), default=0)
        self._progress = progress
        self._cancel = cancel
        self._done = 0
        self._started = time.perf_counter()
        self._phase = "measure"

    def readers(
        self, phase: str = "measure", entries: Sequence[Entry] | None = None
    ) -> Iterator[TensorReader]:
        """One reader per merged tensor, sorted by name; counts as one pass for progress."""
        for entry in self.family.merged if entries is None else entries:
            self.check_cancelled()
            yield TensorReader(self, entry)
            self.advance(phase, entry, entry.numel)

    def advance(self, phase: str, entry: Entry, elements: int) -> None:
        """Records finished work and reports it."""
        self._done += elements
        if self._progress is None:
            return
        seconds = time.perf_counter() - self._started
        left = max(self.total - self._done, 0)
        eta = seconds * left / self._done if self._done and seconds > 0.05 else None
        rate = 4.0 * self._done / seconds if seconds > 0 else 0.0
        self._progress(
            Progress(phase, min(self._done, self.total), self.total, entry.name,
                     entry.place.layer, seconds, rate, eta)
        )  # fmt: skip

    def check_cancelled(self) -> None:
        """Raises Cancelled if a stop was asked for."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled("stopped; nothing was written")


class TensorReader:
    """float32 chunks of one merged tensor: the base's, and every expert's delta."""

    def __init__(self, stream: Stream, entry: Entry) -> None:
        self.entry = entry
        self.numel = entry.numel
        self.experts = len(stream.family.experts)
        self._stream = stream
        self._resident = entry.numel <= RESIDENT
        self._kept: dict[int, torch.Tensor] = {}

    def spans(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of every chunk; one empty span for an empty tensor."""
        step = self.numel if self._resident else self._stream.chunk
        for start in range(0, max(self.numel, 1), max(step, 1)):
            self._stream.check_cancelled()
            yield start, min(start + step, self.numel)

    def base(self, start: int, stop: int) -> torch.Tensor:
        """The base's elements [start, stop), (n,) float32 on the stream's device."""
        return self._get(-1, start, stop)

    def delta(self, expert: int, start: int, stop: int) -> torch.Tensor:
        """Expert minus base for [start, stop), (n,) float32. Not to be changed in place."""
        return self._get(expert, start, stop)

    def deltas(self, start: int, stop: int) -> list[torch.Tensor]:
        """Every expert's delta for [start, stop)."""
        base = self.base(start, stop)
        return [self._delta(expert, start, stop, base) for expert in range(self.experts)]

    def _get(self, model: int, start: int, stop: int) -> torch.Tensor:
        if model >= 0:
            return self._delta(model, start, stop, None)
        if self._resident and -1 in self._kept:
            return self._kept[-1]
        chunk = self._read(self._stream.family.base, start, stop)
        if self._resident:
            self._kept[-1] = chunk
        return chunk

    def _delta(self, expert: int, start: int, stop: int, base: torch.Tensor | None) -> torch.Tensor:
        if self._resident and expert in self._kept:
            return self._kept[expert]
        base = self.base(start, stop) if base is None else base
        delta = self._read(self._stream.family.experts[expert], start, stop) - base
        if self._resident:
            self._kept[expert] = delta
        return delta

    def _read(self, model: Checkpoint, start: int, stop: int) -> torch.Tensor:
        raw = model.read_flat(self.entry.name, start, stop)
        return raw.to(self._stream.device).float()

    def blame(self, start: int, stop: int) -> NonFinite:
        """The error for a chunk that came out non-finite: names the model that brought it."""
        for model in self._stream.family.models:
            values = self._read(model, start, stop)
            bad = ~torch.isfinite(values)
            if bad.any():
                at = int(torch.nonzero(bad)[0])
                return NonFinite(
                    f"{model.name}: tensor {self.entry.name} holds {values[at].item()} at flat "
                    f"index {start + at} ({int(bad.sum())} such values in this chunk); "
                    "use a sound copy of the model, or leave it out"
                )
        return NonFinite(
            f"tensor {self.entry.name}: the result does not fit the output type; use a smaller "
            "strength or amplification, or dtype: float32"
        )
