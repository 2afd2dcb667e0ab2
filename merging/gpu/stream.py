"""The engine for CUDA GPUs: tensors merged in batches, each by a few kernels, written meanwhile.

Worker threads take batches in turn. One launches its kernels and copies the result to page-locked
memory while the others write. What has no kernel (blends, tensors too large to be held
whole) runs as in `engines.eager`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from merging import kernels
from merging.checkpoints import Entry, Family
from merging.checkpoints.checkpoint import WIDTHS, torch_dtype
from merging.declarations.measures import Spread
from merging.declarations.methods import Pruning
from merging.engines.eager import Decide, MergedChunk, Profile, Stream, TensorReader
from merging.engines.eager.reader import SpreadReader
from merging.engines.sources import KeptFamily, KeptTensor
from merging.errors import one_line
from merging.gpu import launching, table, tallying
from merging.gpu.selecting import Population
from merging.gpu.table import Setting, Shape
from merging.gpu.tallying import Tally
from merging.instructions import Competition, Decision, Keep, Largest, Outcome, Ranked, Selected
from merging.instructions.ranked import ratio
from merging.later import torch

log = logging.getLogger(__name__)

WORTH_COMPILING = 1 << 28  # elements x experts from which kernels pay for their making
BATCH_BYTES = 1 << 26  # of merged tensors
PIECE_BYTES = 1 << 25  # handed on at a time
LONGEST = (1 << 31) - (1 << 20)  # elements: indices are int32
MOST_EXPERTS = 16  # a kernel repeats its steps for each: more would take minutes to compile
_ALIGNED = 256  # bytes
_SWEEPS = 2  # passes that order statistics count as; those of kernels take no time worth telling
_EVERYTHING = Keep()

T = TypeVar("T")


def is_worthwhile(family: Family, device: str) -> bool:
    """True where a GPU's kernels pay within one merge, and can be made."""
    work = sum(entry.numel for entry in family.merged) * len(family.experts)
    if not (device.startswith("cuda") and work >= WORTH_COMPILING and can_compile(device)):
        return False
    if kernels.can_build():
        kernels.library()  # what is written is checked by loops of the CPU
    return True


@functools.cache
def can_compile(device: str) -> bool:
    """True where Triton works: tried on a handful of numbers."""
    try:
        few = torch.arange(64, dtype=torch.float32, device=device)
        shape = Shape(("F32", "F32"), (0,), (True,), (False,), True, 0, "F32")
        more, result = few + 1, torch.empty_like(few)
        addresses = np.array([[result.data_ptr(), few.data_ptr(), more.data_ptr(), 0]])
        numbers = table.whole_numbers(shape, [few.numel()], [[Keep()]])
        factors = np.ones((1, shape.factor_at[-1]), dtype=np.float32)
        launching.launch(shape, addresses, numbers, factors, device)
        return torch.equal(result, more)
    except Exception as error:  # whatever a compiler, or the lack of one, may raise
        reason = one_line(error) or type(error).__name__
        log.warning("GPU kernels are not available: %s", reason)
        return False


class Job(NamedTuple):
    """One tensor of a batch, ready to be merged.

    Attributes:
        held: what the models hold, on the device.
    """

    reader: KernelReader
    decisions: Sequence[Decision]
    outcome: Outcome
    held: KeptTensor
    setting: Setting

    def is_like(
        self, decisions: Sequence[Decision], outcome: Outcome, held: KeptTensor, dtype: str
    ) -> bool:
        """True where another tensor was decided with this one, and is of the same types."""
        alike = decisions is self.decisions and outcome is self.outcome
        return alike and held.types == self.held.types and dtype == self.setting.shape.output


@dataclass(frozen=True)
class Merged:
    """A batch on the device.

    Attributes:
        values: all results, one after the other, each at an aligned place.
        starts: where each begins, in bytes.
        sums: per launch, which jobs were in it, and of these what `launching.launch` returns.
    """

    values: torch.Tensor
    starts: list[int]
    sums: list[tuple[list[int], torch.Tensor]]

    def reports(self, count: int) -> np.ndarray:
        """(count, 2) float64: per job what `launching.launch` returns, once it is worked out."""
        result = np.zeros((count, 2))
        for jobs, sums in self.sums:
            result[jobs] = sums.cpu().numpy()
        return result


class KernelReader(TensorReader):
    """One tensor of a family on a GPU. Finds cuts where the tensor is held whole."""

    def __init__(self, stream: KernelStream, entry: Entry) -> None:
        super().__init__(stream, entry)
        self.is_held = stream.holds(entry)
        self.finds_cuts = self.is_held and stream.cuts_may_wait
        self._held_by = stream.held
        self._tally = stream.tally

    @functools.cached_property
    def held(self) -> KeptTensor:
        """What the models hold, on the device."""
        return self._held_by(self.entry)

    def changed(self) -> list[int]:
        """As TensorReader."""
        return self.held.changed()

    def profile(
        self, stride: int, first: int, near: Sequence[Sequence[float]] | None = None
    ) -> Profile:
        """As TensorReader; all tensors that the device holds are counted in one pass."""
        tally = self._tally(self.entry)
        if tally is None or not tally.whole:
            return super().profile(stride, first, near)
        own = tally.coarse + tally.others
        occupied = np.flatnonzero(own.any(axis=0))
        here = slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0)
        base, *experts = (model[first::stride].float() for model in self.held.models)
        sample = torch.stack([base, *(expert - base for expert in experts)]).cpu().numpy()
        histogram = own[:, here].astype(np.int64)
        return Profile(
            histogram, histogram.sum(1), tally.coarse[:, here].astype(np.int64), tally.l1,
            np.diag(tally.dots).copy(), tally.largest, tally.dots, tally.base_l2, [sample],
            [[] for _ in experts], tally.first + here.start,
        )  # fmt: skip

    def gram(self) -> np.ndarray:
        """As TensorReader; of a tensor that stays it is measured once."""
        if not self.is_held:
            return super().gram()
        if self.held.gram is None:
            self.held.gram = super().gram()
        return self.held.gram.copy()

    def magnitudes_at(
        self, ranks: Sequence[int], decisions: Sequence[Decision]
    ) -> list[list[float]]:
        """As TensorReader."""
        if not self._is_whole(decisions):
            return super().magnitudes_at(ranks, decisions)
        return self.held.population.magnitudes_at(ranks)

    def scores_at(
        self, ranks: Sequence[int], decisions: Sequence[Decision], game: Competition
    ) -> list[list[float]]:
        """As TensorReader."""
        if not self._is_whole(decisions):
            return super().scores_at(ranks, decisions, game)
        return self.held.population.scores_at(ranks, game)

    def spread(self, decisions: Sequence[Decision]) -> Spread:
        """As TensorReader."""
        if not self._is_whole(decisions):
            return super().spread(decisions)
        return KernelSpread(self, decisions, self.held)

    def _is_whole(self, decisions: Sequence[Decision]) -> bool:
        """True where nothing is pruned of a tensor that the device holds."""
        return self.is_held and all(one == _EVERYTHING for one in decisions)


class KernelSpread(SpreadReader):
    """The variance of what a device holds; where it has its cuts, the kernels find."""

    finds_cuts = True

    def __init__(
        self, reader: TensorReader, decisions: Sequence[Decision], held: KeptTensor
    ) -> None:
        super().__init__(reader, decisions)
        self._held = held

    def differing(self, share: float = 0.0) -> int:
        """As SpreadReader; of a tensor that stays they are counted once."""
        return self._held.variances.differing

    def most_energy(self) -> float:
        """As SpreadReader."""
        return self._held.variances.energy


class KernelStream(Stream):
    """A stream that merges in batches."""

    engine = "kernels"

    def open(self, entry: Entry) -> TensorReader:
        """The reader of one merged tensor."""
        return KernelReader(self, entry)

    def holds(self, entry: Entry) -> bool:
        """True for a tensor that the device's memory holds whole, of not too many models."""
        in_memory = isinstance(self.source, KeptFamily) or entry.numel <= self.resident
        few = len(self.family.experts) <= MOST_EXPERTS
        return few and in_memory and 0 < entry.numel <= LONGEST

    def magnitudes_at(self, ranks: Sequence[int], pruning: Pruning) -> list[list[float]]:
        """As Stream; the family's own order statistics are kept with it."""
        population = self._population(pruning)
        if population is None:
            return super().magnitudes_at(ranks, pruning)
        return population.magnitudes_at(ranks)

    def scores_at(
        self, ranks: Sequence[int], pruning: Pruning, game: Competition
    ) -> list[list[float]]:
        """As Stream."""
        population = self._population(pruning)
        if population is None:
            return super().scores_at(ranks, pruning, game)
        return population.scores_at(ranks, game)

    def tally(self, entry: Entry) -> Tally | None:
        """What is counted of a tensor, for all of a family in the device's memory in one pass; None
        where the device does not hold it."""
        with self.lock:
            return self._tallies.get(entry.name)

    @functools.cached_property
    def _tallies(self) -> Mapping[str, Tally | None]:
        held = [entry for entry in self.family.merged if self._keeps(entry)]
        rows = tallying.tallies([self.held(entry) for entry in held])
        return {entry.name: row for entry, row in zip(held, rows, strict=True)}

    def _keeps(self, entry: Entry) -> bool:
        return isinstance(self.source, KeptFamily) and self.holds(entry)

    def _population(self, pruning: Pruning) -> Population | None:
        """All elements of a family that the device holds, where nothing is pruned."""
        if not isinstance(self.source, KeptFamily):
            return None
        self.check_cancelled()
        for entry in self.family.merged:
            if not (self.holds(entry) or entry.numel == 0):
                return None
            if any(one != _EVERYTHING for one in pruning(KernelReader(self, entry))):
                return None
        self.total -= _SWEEPS * sum(entry.numel for entry in self.family.merged)
        return self.source.population

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
            reports = merged.reports(len(jobs)).tolist()
            taken = {}
            for job, start, (doubt, changed) in zip(jobs, merged.starts, reports, strict=True):
                output = job.setting.shape.output
                width = WIDTHS[output]
                values = slice(start, start + job.reader.numel * width)
                finite = not doubt or (doubt <= 1 and _is_finite(merged.values[values], output))
                sums = finite, changed, job.held.squared()
                pieces = _pieces(host[values], width, sums)
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
        results_of = {
            entry.name: one
            for batch, results in zip(batches, self.each(run, batches), strict=True)
            for entry, one in zip(batch, results, strict=True)
        }
        return [results_of[entry.name] for entry in entries]

    def batches(
        self, entries: Iterable[Entry], dtypes: Mapping[str, str], most: int = BATCH_BYTES
    ) -> Iterator[list[Entry]]:
        """Tensors of about the same size, so that few programs of a launch have nothing to do.

        Args:
            most: bytes of merged tensors in a batch; one tensor may have more.
        """
        batch: list[Entry] = []
        size = 0
        for entry in sorted(entries, key=lambda entry: -entry.numel):
            more = entry.numel * WIDTHS[dtypes[entry.name]]
            if batch and size + more > most:
                yield batch
                batch, size = [], 0
            batch.append(entry)
            size += more
        if batch:
            yield batch

    def launched(self, jobs: Sequence[Job]) -> Merged:
        """Merges a batch; the device may still be at work when this returns."""
        sizes = [job.reader.numel * WIDTHS[job.setting.shape.output] for job in jobs]
        ends = np.cumsum([-(-size // _ALIGNED) * _ALIGNED for size in sizes], dtype=np.int64)
        starts = [0, *ends.tolist()]
        values = torch.empty(starts[-1], dtype=torch.uint8, device=self.device)
        alike: dict[int, list[int]] = {}
        for index, job in enumerate(jobs):
            alike.setdefault(id(job.setting.shape), []).append(index)  # equal ones are one object
        sums = []
        for members in alike.values():
            group = [jobs[index] for index in members]
            shape = group[0].setting.shape
            numels = [job.reader.numel for job in group]
            columns = [job.reader.columns for job in group]
            decisions = [job.decisions for job in group]
            counts = [_count_of(job.outcome) for job in group] if shape.selects else ()
            numbers = table.whole_numbers(shape, numels, decisions, columns, counts)
            factors = table.factors([job.setting for job in group])
            pairs = zip(group, columns, strict=True)
            rows = [
                job.held.addresses(shape.located, shape.by_rank, row, shape.selects)
                for job, row in pairs
            ]
            results = [values.data_ptr() + starts[index] for index in members]
            addresses = np.column_stack([results, rows])
            norms = torch.stack([job.held.norms for job in group]) if shape.rescaled else None
            report = launching.launch(shape, addresses, numbers, factors, self.device, norms)
            sums.append((members, report))
        return Merged(values, starts[:-1], sums)

    def decided(
        self, batch: Sequence[Entry], decide: Decide, dtypes: Mapping[str, str]
    ) -> tuple[list[Job], list[tuple[TensorReader, Sequence[Decision], Outcome]]]:
        """What to do with a batch: jobs for the kernels, and what has none."""
        jobs: list[Job] = []
        others: list[tuple[TensorReader, Sequence[Decision], Outcome]] = []
        for entry in batch:
            reader = KernelReader(self, entry)
            decisions, outcome = decide(reader)
            if not reader.is_held:
                others.append((reader, decisions, outcome))
                continue
            held, dtype = reader.held, dtypes[entry.name]
            if jobs and jobs[-1].is_like(decisions, outcome, held, dtype):
                jobs.append(Job(reader, decisions, outcome, held, jobs[-1].setting))
                continue
            setting = table.setting(
                decisions, outcome, entry.numel, held.types, dtype, reader.columns
            )
            if setting is None or (any(setting.shape.by_rank) and not self._has_room_for_ranks):
                others.append((reader, _by_torch(reader, decisions), outcome))
                continue
            launching.prepare(setting.shape, self.device)
            jobs.append(Job(reader, decisions, outcome, held, setting))
        return jobs, others

    @functools.cached_property
    def _has_room_for_ranks(self) -> bool:
        """True where the device's memory holds the ranks of a family that stays there, too."""
        return not isinstance(self.source, KeptFamily) or self.source.has_room_for_ranks

    def l1_norms(self, entries: Sequence[Entry]) -> np.ndarray:
        """As Stream; of a family in the device's memory all are asked for before one is waited
        for."""
        if not self._stay(entries):
            return super().l1_norms(entries)
        return self._waited([self.held(entry).l1_norms() for entry in self._passing(entries)])

    def counts_above(self, entries: Sequence[Entry], bounds: np.ndarray) -> np.ndarray:
        """As Stream, and as `l1_norms`."""
        if not self._stay(entries):
            return super().counts_above(entries, bounds)
        held = [self.held(entry) for entry in self._passing(entries)]
        return tallying.counts_above(held, bounds)

    def _stay(self, entries: Sequence[Entry]) -> bool:
        return isinstance(self.source, KeptFamily) and bool(entries)

    def _passing(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        for entry in entries:
            self.check_cancelled()
            yield entry
            self.advance("measure", entry, entry.numel)

    def _waited(self, rows: Sequence[torch.Tensor]) -> np.ndarray:
        result: np.ndarray = torch.stack(list(rows)).cpu().numpy()
        return result

    def held(self, entry: Entry) -> KeptTensor:
        """What the models hold of a tensor, on the device."""
        if isinstance(self.source, KeptFamily):
            return self.source.tensors[entry.name]
        models = [
            self.source.read(model, entry.name, 0, entry.numel) for model in self.family.models
        ]
        return KeptTensor.of(self.family, entry.name, models)


def _count_of(outcome: Outcome) -> int:
    """How many entries the variance selects."""
    assert isinstance(outcome.combination, Selected)
    cut = outcome.combination.cut
    return cut.count if isinstance(cut, Largest) else 0


def _by_torch(reader: TensorReader, decisions: Sequence[Decision]) -> list[Decision]:
    """Decisions as torch runs them, which finds no factors."""
    return [
        replace(
            one, rescaled=False, scale=ratio(*reader.pruned_norms(e, replace(one, rescaled=False)))
        )
        if isinstance(one, Ranked) and one.rescaled
        else one
        for e, one in enumerate(decisions)
    ]


def _is_finite(values: torch.Tensor, dtype: str) -> bool:
    return bool(torch.isfinite(values.view(torch_dtype(dtype))).all())


def _to_host(values: torch.Tensor) -> np.ndarray:
    """The bytes in page-locked memory, once the device has made them."""
    host = torch.empty(values.shape, dtype=torch.uint8, pin_memory=values.is_cuda)
    host.copy_(values)
    return host.numpy()


def _pieces(
    values: np.ndarray, width: int, sums: tuple[bool, float, float]
) -> Iterator[MergedChunk]:
    """A merged tensor piece by piece; its sums come with the first."""
    finite, changed, squared = sums
    for start in range(0, max(values.size, 1), PIECE_BYTES):
        piece = values[start : start + PIECE_BYTES].data
        yield MergedChunk(start // width, piece, finite, changed, squared)
        changed = squared = 0.0


__all__ = ["KernelReader", "KernelStream", "is_worthwhile"]
