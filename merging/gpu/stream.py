"""The engine for CUDA GPUs: tensors merged in batches, each by three kernels, written meanwhile.

Worker threads take batches in turn. One launches its kernels and copies the result to page-locked
memory while the others write. What has no kernel (PCB's competitions, tensors too large to be
held whole) runs as in `merging.engine`.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from merging.checkpoints import Entry, Family
from merging.checkpoints.checkpoint import WIDTHS, torch_dtype
from merging.decisions import Competition, Decision, Outcome
from merging.engine import Decide, MergedChunk, Stream, TensorReader
from merging.gpu import order, table
from merging.gpu.table import Shape
from merging.later import torch
from merging.sources import KeptFamily

log = logging.getLogger(__name__)

WORTH_COMPILING = 1 << 28  # elements x experts from which kernels pay for their making
BATCH_BYTES = 1 << 26  # of merged tensors
PIECE_BYTES = 1 << 25  # handed on at a time
LONGEST = (1 << 31) - (1 << 20)  # elements: indices are int32
_ALIGNED = 256  # bytes

T = TypeVar("T")


def is_worthwhile(family: Family, device: str) -> bool:
    """True where a GPU's kernels pay within one merge, and can be made."""
    work = sum(entry.numel for entry in family.merged) * len(family.experts)
    return device.startswith("cuda") and work >= WORTH_COMPILING and can_compile(device)


@functools.cache
def can_compile(device: str) -> bool:
    """True where Triton works: tried on a handful of numbers."""
    try:
        few = torch.arange(64, dtype=torch.float32, device=device)
        shape = Shape(("F32", "F32"), (0,), (True,), 0, "F32")
        more, result = few + 1, torch.empty_like(few)
        row = [few.numel(), result.data_ptr(), few.data_ptr(), more.data_ptr()]
        launch(shape, [row], [[1.0] * shape.factor_at[-1]], device)
        return torch.equal(result, more)
    except Exception as error:  # whatever a compiler, or the lack of one, may raise
        log.warning("GPU kernels are not available: %s", str(error).splitlines()[0])
        return False


@dataclass(frozen=True)
class Job:
    """One tensor of a batch, ready to be merged.

    Attributes:
        raw: what the models hold, base first, on the device.
    """

    reader: KernelReader
    decisions: Sequence[Decision]
    outcome: Outcome
    raw: Sequence[torch.Tensor]
    shape: Shape


@dataclass(frozen=True)
class Merged:
    """A batch on the device.

    Attributes:
        values: all results, one after the other, each at an aligned place.
        starts: where each begins, in bytes.
        sums: per launch, which jobs were in it and their sums, (T, ..., 3) float64.
    """

    values: torch.Tensor
    starts: list[int]
    sums: list[tuple[list[int], list[torch.Tensor]]]

    def told(self, count: int) -> np.ndarray:
        """(count, 3) float64: per job, how many values are not finite, and sums as MergedChunk."""
        result = np.zeros((count, 3))
        for jobs, parts in self.sums:
            for part in parts:
                result[jobs] += part.sum(1).cpu().numpy()
        return result


class KernelReader(TensorReader):
    """One tensor of a family on a GPU."""

    stream: KernelStream

    @property
    def finds_cuts(self) -> bool:  # type: ignore[override]
        """Where the tensor is held whole."""
        return self.stream.holds(self.entry)


class KernelStream(Stream):
    """A stream that merges in batches."""

    engine = "kernels"

    def open(self, entry: Entry) -> TensorReader:
        """The reader of one merged tensor."""
        return KernelReader(self, entry)

    def holds(self, entry: Entry) -> bool:
        """True for a tensor that the device's memory holds whole, of all models."""
        kept = isinstance(self.source, KeptFamily) or entry.numel <= self.resident
        return kept and 0 < entry.numel <= LONGEST

    def merge(
        self,
        entries: Sequence[Entry],
        decide: Decide,
        dtypes: Mapping[str, str],
        take: Callable[[TensorReader, Iterable[MergedChunk]], T],
    ) -> list[T]:
        """As Stream."""

        def run(batch: Sequence[Entry]) -> list[T]:
            jobs, others = self.decided(batch, decide, dtypes)
            merged = self.launched(jobs)
            host = _to_host(merged.values)
            told = merged.told(len(jobs))
            taken = {}
            for job, start, sums in zip(jobs, merged.starts, told, strict=True):
                size = job.reader.numel * WIDTHS[job.shape.output]
                pieces = _pieces(host[start : start + size], WIDTHS[job.shape.output], sums)
                taken[job.reader.entry.name] = take(job.reader, pieces)
                self.advance("merge", job.reader.entry, job.reader.numel)
            for reader, decisions, outcome in others:
                entry = reader.entry
                taken[entry.name] = take(
                    reader, reader.merge(decisions, outcome, dtypes[entry.name])
                )
                self.advance("merge", entry, entry.numel)
            return [taken[entry.name] for entry in batch]

        batches = list(self.batches(entries, dtypes))
        found = {
            entry.name: one
            for batch, results in zip(batches, self.each(run, batches), strict=True)
            for entry, one in zip(batch, results, strict=True)
        }
        return [found[entry.name] for entry in entries]

    def batches(
        self, entries: Iterable[Entry], dtypes: Mapping[str, str]
    ) -> Iterator[list[Entry]]:
        """Tensors of about the same size, so that few programs of a launch have nothing to do."""
        batch: list[Entry] = []
        size = 0
        for entry in sorted(entries, key=lambda entry: -entry.numel):
            more = entry.numel * WIDTHS[dtypes[entry.name]]
            if batch and size + more > BATCH_BYTES:
                yield batch
                batch, size = [], 0
            batch.append(entry)
            size += more
        if batch:
            yield batch

    def launched(self, jobs: Sequence[Job]) -> Merged:
        """Merges a batch; the device may still be at work when this returns."""
        sizes = [job.reader.numel * WIDTHS[job.shape.output] for job in jobs]
        ends = np.cumsum([-(-size // _ALIGNED) * _ALIGNED for size in sizes], dtype=np.int64)
        starts = [0, *ends.tolist()]
        values = torch.empty(starts[-1], dtype=torch.uint8, device=self.device)
        alike: dict[Shape, list[int]] = {}
        for index, job in enumerate(jobs):
            alike.setdefault(job.shape, []).append(index)
        sums = []
        for shape, members in alike.items():
            rows, factors = [], []
            for index in members:
                job = jobs[index]
                addresses = [values.data_ptr() + starts[index], *(t.data_ptr() for t in job.raw)]
                rows.append(
                    table.whole_numbers(
                        job.decisions, job.reader.numel, addresses, functools.partial(_marks, job)
                    )
                )
                factors.append(table.factors(job.decisions, job.outcome))
            sums.append((members, launch(shape, rows, factors, self.device)))
        return Merged(values, starts[:-1], sums)

    def decided(
        self, batch: Sequence[Entry], decide: Decide, dtypes: Mapping[str, str]
    ) -> tuple[list[Job], list[tuple[TensorReader, Sequence[Decision], Outcome]]]:
        """What to do with a batch: jobs for the kernels, and what has none."""
        jobs, others = [], []
        models = self.family.models
        for entry in batch:
            reader = KernelReader(self, entry)
            decisions, outcome = decide(reader)
            if not self.holds(entry) or isinstance(outcome.combination, Competition):
                others.append((reader, decisions, outcome))
                continue
            types = tuple(model.tensors[entry.name].dtype for model in models)
            shape = table.shape_of(decisions, outcome, types, dtypes[entry.name])
            raw = [self.source.read(model, entry.name, 0, entry.numel) for model in models]
            jobs.append(Job(reader, decisions, outcome, raw, shape))
        return jobs, others


def _marks(job: Job, expert: int) -> np.ndarray:
    stream, name = job.reader.stream, job.reader.entry.name
    if isinstance(stream.source, KeptFamily):
        return stream.source.marks(stream.family.base, stream.family.experts[expert], name)
    return order.marks(job.raw[0], job.raw[1 + expert])


def _to_host(values: torch.Tensor) -> np.ndarray:
    """The bytes in page-locked memory, once the device has made them."""
    host = torch.empty(values.shape, dtype=torch.uint8, pin_memory=values.is_cuda)
    host.copy_(values)
    return host.numpy()


def _pieces(values: np.ndarray, width: int, sums: np.ndarray) -> Iterator[MergedChunk]:
    """A merged tensor piece by piece; its sums come with the first."""
    bad, changed, squared = sums.tolist()
    for start in range(0, max(values.size, 1), PIECE_BYTES):
        piece = values[start : start + PIECE_BYTES].data
        yield MergedChunk(start // width, piece, bad == 0, changed, squared)
        changed = squared = 0.0


_making = threading.Lock()


def launch(
    shape: Shape, rows: list[list[int]], factors: list[list[float]], device: str
) -> list[torch.Tensor]:
    """Merges some tensors of one shape.

    Args:
        rows, factors: the table, see `merging.gpu.table`.

    Returns:
        Their sums in parts, each (T, ..., 3) float64.
    """
    from merging.gpu import kernels

    whole = torch.tensor(rows, dtype=torch.int64).to(device, non_blocking=True)
    numbers = torch.tensor(factors, dtype=torch.float32).to(device, non_blocking=True)
    tensors, rings = len(rows), shape.ring_at[-1]
    programs = -(-max(row[table.NUMEL] for row in rows) // kernels.BLOCK)
    sums = torch.zeros(tensors, programs, 3, dtype=torch.float64, device=device)
    listed = torch.zeros(tensors, max(rings, 1), dtype=torch.int32, device=device)
    places = torch.empty(tensors, max(rings, 1), order.NEAR, 2, dtype=torch.int32, device=device)
    final = torch.empty(tensors, max(rings, 1), 2, dtype=torch.int64, device=device)
    kinds = {
        "types": tuple(kernels.TYPES[name] for name in shape.types), "rings": shape.rings,
        "rings_at": shape.rings_at, "draws_at": shape.draws_at, "factor_at": shape.factor_at, "ring_at": shape.ring_at,
        "amplified": shape.amplified, "combination": shape.combination,
        "output": kernels.TYPES[shape.output],
    }  # fmt: skip
    with _making:
        kernels.merge[programs, tensors](
            whole, numbers, final, listed, places, sums, programs, **kinds,
            block=kernels.BLOCK, num_warps=kernels.WARPS, enable_fp_fusion=False,
        )  # fmt: skip
        if not rings:
            return [sums]
        mended = torch.empty(tensors, rings, 3, dtype=torch.float64, device=device)
        kernels.settle[rings, tensors](
            whole, final, listed, places, shape.draws_at[-1], shape.rings_at, rings
        )
        kernels.mend[rings, tensors](
            whole, numbers, final, listed, places, mended, **kinds,
            block=256, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return [sums, mended]


__all__ = ["KernelReader", "KernelStream", "is_worthwhile"]
