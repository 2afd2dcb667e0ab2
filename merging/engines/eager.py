"""Drives pure functions over the chunks of a family: reading, up-casting, progress, cancel.

Nothing here knows a method's formula. A `TensorReader` measures and merges one tensor through
torch, chunk by chunk: small tensors stay in memory between passes, large ones are read again, so
memory is bounded by the chunk, not by the model. `engines.fused` does the same with fused loops.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from merging.checkpoints import Checkpoint, Entry, Family
from merging.checkpoints.checkpoint import torch_dtype
from merging.declarations.measures import Near, Spread
from merging.declarations.methods import Pruning
from merging.engines.sources import Files, KeptFamily, Queues, RawTensors
from merging.errors import Cancelled, DeviceUnavailable, NonFinite
from merging.evidence import whole_model
from merging.instructions import (
    Combination,
    Competition,
    Decision,
    Eager,
    Needs,
    Outcome,
    Ranked,
    Unified,
    apply,
    combine,
    competitions,
    elections,
    elementary,
    grams,
    masks,
    needs_of,
)
from merging.instructions.eager import widest
from merging.later import torch
from merging.selection.statistics import (
    HALF,
    Observation,
    OrderStatistic,
    Sweep,
    order_statistics,
    statistics,
    sweep_rows,
    upper_histogram,
)
from merging.selection.tied import Band, Cut, Looked, Parted, stops

CHUNK = 1 << 20  # elements per chunk
GPU_CHUNK = 1 << 24  # on a GPU, where a launch costs as much as some 100,000 elements
RESIDENT = 1 << 22  # tensors up to this many elements are kept in float32 between passes
RUN = 64  # elements read in a row where a tensor is sampled
GPU_WORKERS = 3  # threads: one reads while one copies and one computes

T = TypeVar("T")
J = TypeVar("J")


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
    layer: int | str | None
    seconds: float
    rate_bytes: float
    eta_s: float | None


ProgressCallback = Callable[[Progress], None]
Decide = Callable[["TensorReader"], tuple[Sequence[Decision], Outcome]]


@dataclass(frozen=True)
class MergedChunk:
    """A finished piece of a tensor.

    Attributes:
        start: index of its first element.
        values: bytes of n elements of the output type, until the next piece is asked for.
        finite: False where a value is NaN or infinite.
        changed, squared: sum of (merged - base) squared, and of base squared.
    """

    start: int
    values: memoryview
    finite: bool
    changed: float
    squared: float


@dataclass
class Profile:
    """Sums over one tensor of E experts' deltas.

    Attributes:
        histogram: (E, n) int64, entries by the upper 16 bits of |delta|, from `first` on.
        nonzero: (E,) int64.
        coarse: (E, n) int64, those of `histogram` whose lower 16 bits are zero; no zeros.
        l1, l2, largest: (E,) float64, sums of |delta| and of delta squared, largest |delta|.
        dots: (E, E) float64, inner products.
        base_l2: sum of squares of the base.
        sample: (E, s) float32 pieces of sampled deltas, in order.
        near: per expert, what lies near the values asked for; empty where that was not kept.
        first: upper bits of the first bucket; before and after the histogram there are no entries.
    """

    histogram: np.ndarray
    nonzero: np.ndarray
    coarse: np.ndarray
    l1: np.ndarray
    l2: np.ndarray
    largest: np.ndarray
    dots: np.ndarray
    base_l2: float
    sample: list[np.ndarray]
    near: list[list[Near]]
    first: int = 0

    @staticmethod
    def empty(experts: int, buckets: int = HALF) -> Profile:
        """All sums 0."""
        return Profile(
            histogram=np.zeros((experts, buckets), dtype=np.int64),
            nonzero=np.zeros(experts, dtype=np.int64),
            coarse=np.zeros((experts, buckets), dtype=np.int64),
            l1=np.zeros(experts),
            l2=np.zeros(experts),
            largest=np.zeros(experts),
            dots=np.zeros((experts, experts)),
            base_l2=0.0,
            sample=[],
            near=[[] for _ in range(experts)],
        )


def pick_device(name: str = "auto") -> str:
    """The device for the arithmetic: cpu, cuda or mps (Apple's GPU, only where asked for).

    torch is asked for CUDA only where the driver's device files are there.

    Raises:
        DeviceUnavailable: there is no such device.
    """
    if name == "auto":
        return "cuda" if _has_cuda() else "cpu"
    if name == "cuda" and not _has_cuda():
        raise DeviceUnavailable("device cuda: no CUDA GPU is present; use --device cpu or auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("device mps: no Apple GPU is present; use --device cpu or auto")
    if name not in ("cpu", "cuda", "mps"):
        raise DeviceUnavailable(f"device {name}: not known; valid: auto, cpu, cuda, mps")
    return name


def _has_cuda() -> bool:
    drivers = ("/dev/nvidiactl", "/dev/dxg")
    return any(os.path.exists(path) for path in drivers) and torch.cuda.is_available()


class Stream:
    """The merged tensors of a family, with progress and cancel.

    Args:
        family: whose tensors are read.
        device: where the arithmetic happens.
        passes: how often the family will be read, for the progress' total.
        chunk: elements worked on at a time.
        source: where raw tensors come from; their files if None.

    Attributes:
        cuts_may_wait: False where something is measured by the cuts of pruned changes, so that they
            must be known before a merge.
    """

    engine = "eager"

    def __init__(
        self,
        family: Family,
        *,
        device: str = "cpu",
        passes: int = 1,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
        chunk: int | None = None,
        source: RawTensors | None = None,
    ) -> None:
        self.family = family
        self.device = device
        self.chunk = chunk or (CHUNK if device == "cpu" else GPU_CHUNK)
        self.resident = RESIDENT if device == "cpu" else 4 * self.chunk
        self.source = source or Files(device)
        # torch has threads of its own; CUDA alone has queues of work
        self.workers = GPU_WORKERS if device.startswith("cuda") else 1
        self._queues = Queues(device, self.workers)
        self.total = sum(entry.numel for entry in family.merged) * passes
        self.cuts_may_wait = True
        self._progress = progress
        self._cancel = cancel
        self._samples: dict[int, np.ndarray | None] = {}
        self._done = 0
        self._started = time.perf_counter()
        self.lock = threading.Lock()

    def open(self, entry: Entry) -> TensorReader:
        """The reader of one merged tensor."""
        return TensorReader(self, entry)

    def readers(
        self, phase: str = "measure", entries: Sequence[Entry] | None = None
    ) -> Iterator[TensorReader]:
        """One reader per merged tensor, sorted by name; counts as one pass for progress."""
        for entry in self.family.merged if entries is None else entries:
            self.check_cancelled()
            yield self.open(entry)
            self.advance(phase, entry, entry.numel)

    def map(
        self,
        function: Callable[[TensorReader], T],
        phase: str = "measure",
        entries: Sequence[Entry] | None = None,
        order: Callable[[Entry], Any] = lambda entry: -entry.numel,
    ) -> list[T]:
        """Calls `function` on the reader of every merged tensor, several at a time where there are
        workers; results in the order of names.

        Args:
            order: what the tensors begun are sorted by: large ones first, so that none is left
                when the others are done.
        """
        chosen = list(self.family.merged if entries is None else entries)

        def run(entry: Entry) -> T:
            result = function(self.open(entry))
            self.advance(phase, entry, entry.numel)
            return result

        begun = sorted(range(len(chosen)), key=lambda index: order(chosen[index]))
        if self.workers == 1:
            begun = list(range(len(chosen)))
        done = dict(zip(begun, self.each(run, [chosen[index] for index in begun]), strict=True))
        return [done[index] for index in range(len(chosen))]

    def each(self, run: Callable[[J], T], jobs: Sequence[J]) -> list[T]:
        """Runs some jobs in the order given, several at a time where there are workers."""

        def one(job: J) -> T:
            self.check_cancelled()
            return run(job)

        if self.workers == 1 or len(jobs) < 2:
            return [one(job) for job in jobs]
        pool = ThreadPoolExecutor(self.workers, "merge", initializer=self._queues.take)
        futures = [pool.submit(one, job) for job in jobs]
        try:
            for finished in as_completed(futures):
                finished.result()  # the first error stops the rest
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            futures.clear()  # a failed one would keep its tensors through its traceback

    def l1_norms(self, entries: Sequence[Entry]) -> np.ndarray:
        """Sums of |delta| of some tensors, (n, E) float64."""
        rows = self.map(lambda reader: reader.l1_norms(), entries=entries)
        return np.array(rows, dtype=np.float64).reshape(len(entries), len(self.family.experts))

    def counts_above(self, entries: Sequence[Entry], bounds: np.ndarray) -> np.ndarray:
        """Entries of some tensors with |delta| above some bounds, (n, E, B) int64.

        Args:
            bounds: (n, E, B); they count as float32.
        """
        rows = {entry.name: row for entry, row in zip(entries, bounds.tolist(), strict=True)}
        counts = self.map(
            lambda reader: reader.count_above(rows[reader.entry.name]), entries=entries
        )
        return np.array(counts, dtype=np.int64).reshape(bounds.shape)

    def remembered(self, key: Hashable, measure: Callable[[], T]) -> T:
        """What `measure` finds out of the family alone; while the family stays in a device's memory
        it is measured once. The work that is not done again counts as done.

        Args:
            key: what was measured, and all that it depends on besides the family.
        """
        if not isinstance(self.source, KeptFamily):
            return measure()
        findings = self.source.findings
        if key not in findings:
            done, total = self._done, self.total
            findings[key] = measure(), self._done - done, self.total - total
            return findings[key][0]
        finding, done, total = findings[key]
        self._done, self.total = self._done + done, self.total + total
        return finding

    def merge(
        self,
        entries: Sequence[Entry],
        decide: Decide,
        dtypes: Mapping[str, str],
        take: Callable[[TensorReader, Iterable[MergedChunk]], T],
    ) -> list[T]:
        """Merges some tensors.

        Args:
            decide: what a tensor's merge needs to know.
            dtypes: output types (safetensors' names) by tensor.
            take: gets a merged tensor piece by piece; its results are returned.
        """

        def one(reader: TensorReader) -> T:
            return take(reader, reader.merge(*decide(reader), dtypes[reader.entry.name]))

        return self.map(one, "merge", entries)

    def sample(self, stride: int) -> np.ndarray | None:
        """(E, s) float32: about every stride-th delta of all tensors, drawn once; None where there
        is no cheap one."""
        if stride not in self._samples:
            rows = self.map(lambda reader: reader.sample(stride))
            samples = [sample for sample in rows if sample is not None]
            self._samples[stride] = np.concatenate(samples, axis=1) if samples else None
        return self._samples[stride]

    def magnitudes_at(self, ranks: Sequence[int], pruning: Pruning) -> list[list[float]]:
        """Magnitudes of all pruned deltas at ascending ranks, per expert. Raises NonFinite."""
        return whole_model.magnitudes_at(self, ranks, pruning)

    def scores_at(
        self, ranks: Sequence[int], pruning: Pruning, game: Competition
    ) -> list[list[float]]:
        """Scores of a competition at ascending ranks over the whole model, of the experts that take
        part. Raises NonFinite."""
        return whole_model.scores_at(self, ranks, pruning, game, self.score_histograms)

    def score_histograms(self, sample: np.ndarray, game: Competition) -> list[np.ndarray]:
        """PCB's scores of the active experts for some deltas, (65536,) each by upper bits.

        Args:
            sample: (E, s) float32 deltas.
        """
        deltas = [torch.from_numpy(sample[index]) for index in game.active]
        scores = competitions.scores(deltas, game.bounds, game.variant)
        return [upper_histogram(row.numpy()) for row in scores]

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


class TensorReader:
    """Measures and merges one tensor of a family, through torch.

    Attributes:
        finds_cuts: decisions may be `Ranks`.
    """

    finds_cuts = False

    def __init__(self, stream: Stream, entry: Entry) -> None:
        self.entry = entry
        self.numel = entry.numel
        self.experts = len(stream.family.experts)
        self.stream = stream
        self._resident = entry.numel <= stream.resident
        self._memory: dict[int, torch.Tensor] = {}

    def spans(self, needs: Needs = "chunk", multiple: int = 1) -> Iterator[tuple[int, int]]:
        """(start, stop) of every chunk; one empty span for an empty tensor.

        Args:
            needs: what a chunk must hold whole.
            multiple: every chunk but the last holds a multiple of so many elements.
        """
        step = self.numel if self._resident or needs == "tensor" else self.stream.chunk
        if step < self.numel:
            step = max(step - step % multiple, multiple)
        if needs == "rows":
            step = max(step // self.columns, 1) * self.columns
        for start in range(0, max(self.numel, 1), max(step, 1)):
            self.stream.check_cancelled()
            yield start, min(start + step, self.numel)

    @property
    def columns(self) -> int:
        """Elements of a row: the last dimension."""
        return max(self.entry.shape[-1], 1) if self.entry.shape else 1

    def shaped(self, values: torch.Tensor, needs: Needs) -> torch.Tensor:
        """Flat elements as a function that `needs` so much at once gets them, see `Eager`."""
        if needs == "chunk":
            return values
        if needs == "rows":
            return values.reshape(-1, self.columns)
        shape = self.entry.shape
        return values.reshape(shape if self.entry.rows is None else (-1, *shape[1:]))

    def base(self, start: int, stop: int) -> torch.Tensor:
        """The base's elements [start, stop), (n,) float32. Not to be changed in place."""
        if -1 not in self._memory:
            chunk = self.read(self.stream.family.base, start, stop)
            if not self._resident:
                return chunk
            self._memory[-1] = chunk
        return self._memory[-1]

    def model(self, expert: int, start: int, stop: int) -> torch.Tensor:
        """The expert's own elements [start, stop), (n,) float32."""
        return self.read(self.stream.family.experts[expert], start, stop)

    def delta(self, expert: int, start: int, stop: int) -> torch.Tensor:
        """Expert minus base for [start, stop), (n,) float32. Not to be changed in place."""
        return self._delta(expert, start, stop, None)

    def deltas(self, start: int, stop: int) -> list[torch.Tensor]:
        """Every expert's delta for [start, stop)."""
        base = self.base(start, stop)
        return [self._delta(expert, start, stop, base) for expert in range(self.experts)]

    def pruned(
        self, decisions: Sequence[Decision] | None, start: int, stop: int
    ) -> list[torch.Tensor]:
        """Every expert's pruned delta for [start, stop); None prunes nothing."""
        deltas = self.deltas(start, stop)
        if decisions is None:
            return deltas
        return [
            self._apply(decision, delta, start)
            for decision, delta in zip(decisions, deltas, strict=True)
        ]

    def _apply(self, decision: Decision, delta: torch.Tensor, start: int) -> torch.Tensor:
        if not isinstance(decision, Eager | Ranked):
            return apply(decision, delta, start)
        return apply(decision, self.shaped(delta, decision.needs), start).reshape(-1)

    def magnitudes(
        self, decisions: Sequence[Decision] | None = None
    ) -> Iterator[list[torch.Tensor]]:
        """One pass over the magnitudes of the pruned deltas, all experts in step."""
        for start, stop in self.spans(needs_of(decisions)):
            yield [delta.abs() for delta in self.pruned(decisions, start, stop)]

    def order_statistics(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]]:
        """Magnitudes at ascending ranks, per expert. Raises NonFinite naming the model."""
        try:
            return order_statistics(self.magnitudes, ranks)
        except NonFinite as error:
            raise self.culprit(error) from None

    def sweep(
        self, buckets: Sequence[Sequence[int]], decisions: Sequence[Decision] | None = None
    ) -> list[dict[int, np.ndarray]]:
        """Histograms of the magnitudes of the pruned deltas, see `selection.statistics.Sweep`."""
        return sweep_rows(lambda: self.magnitudes(decisions))(buckets)

    def changed(self) -> list[int]:
        """Entries that differ from the base, per expert; of readers that find cuts."""
        raise NotImplementedError

    def stops(self, parted: Sequence[Parted]) -> list[int]:
        """Where cuts part the tensor's equal changes (`selection.tied`); a row is an expert."""
        return stops(self.look, parted)

    def look(self, bands: Sequence[Band], first: int = 0) -> list[Looked]:
        """One pass over the changes that share a magnitude, for some bands; a row is an expert.

        Args:
            first: index of the tensor's first entry in the scope.
        """
        observation = Observation(bands)
        for start, stop in self.spans():
            magnitudes = [delta.abs() for delta in self.deltas(start, stop)]
            observation.add(magnitudes, first + start)
        return observation.result()

    def score_sweep(
        self, decisions: Sequence[Decision], game: Competition, buckets: Sequence[Sequence[int]]
    ) -> list[dict[int, np.ndarray]]:
        """Histograms of PCB's scores of the active experts (`competitions.scores`)."""

        def rows() -> Iterator[list[torch.Tensor]]:
            for start, stop in self.spans(needs_of(decisions)):
                deltas = self.pruned(decisions, start, stop)
                taus = [deltas[index] for index in game.active]
                yield competitions.scores(taus, game.bounds, game.variant)

        return sweep_rows(rows)(buckets)

    def magnitudes_at(
        self, ranks: Sequence[int], decisions: Sequence[Decision]
    ) -> list[list[float]]:
        """Magnitudes of the pruned deltas at ascending ranks, per expert. Raises NonFinite."""
        return self._values_at(lambda b: self.sweep(b, decisions), ranks, self.experts)

    def scores_at(
        self, ranks: Sequence[int], decisions: Sequence[Decision], game: Competition
    ) -> list[list[float]]:
        """Scores of a competition at ascending ranks, of the experts that take part. Raises
        NonFinite."""
        sweep = lambda b: self.score_sweep(decisions, game, b)  # noqa: E731
        return self._values_at(sweep, ranks, len(game.active))

    def sample(self, stride: int) -> np.ndarray | None:
        """(E, s) float32: about every stride-th delta, in runs of neighbours; None as `blocks`."""
        rows = self.blocks(stride, RUN)
        return None if rows is None else rows[1:] - rows[0]

    def blocks(self, one_in: int, size: int) -> np.ndarray | None:
        """(1 + E, s) float32: one block of every so many, the base's values first.

        None where that would mean reading the whole tensor.

        Args:
            size: elements of a block; a smaller tensor is one block.
        """
        return None

    def profile(
        self, stride: int, first: int, near: Sequence[Sequence[float]] | None = None
    ) -> Profile:
        """What a sketch needs of this tensor, in one pass.

        Args:
            stride, first: the flat indices first, first + stride, ... are sampled.
            near: per expert the same number of values; where this reader can, the magnitudes near
                them are kept, so that those above some bound nearby can be counted later.
        """
        total = Profile.empty(self.experts)
        for start, stop in self.spans():
            deltas = torch.stack(self.deltas(start, stop))
            if stop == start:
                continue
            magnitudes = deltas.abs()
            bits = magnitudes.view(torch.int32)
            keys = bits >> 16
            for index in range(self.experts):
                counts = torch.bincount(keys[index], minlength=HALF)
                total.histogram[index] += counts.cpu().numpy()
                few = keys[index][((bits[index] & 0xFFFF) == 0) & (bits[index] != 0)]
                total.coarse[index] += torch.bincount(few, minlength=HALF).cpu().numpy()
            total.nonzero += (magnitudes > 0).sum(1).cpu().numpy()
            total.l1 += magnitudes.sum(1, dtype=torch.float64).cpu().numpy()
            total.l2 += magnitudes.double().square_().sum(1).cpu().numpy()
            np.maximum(total.largest, magnitudes.amax(1).cpu().numpy(), out=total.largest)
            total.dots += (deltas @ deltas.T).double().cpu().numpy()
            base = self.base(start, stop)
            total.base_l2 += elementary.total(base.square())
            skip = (first - start) % stride
            total.sample.append(deltas[:, skip::stride].cpu().numpy())
        return total

    def l1_norms(self) -> list[float]:
        """Sum of |delta| of every expert, in float64."""
        sums = [0.0] * self.experts
        for chunk in self.magnitudes():
            for index, magnitude in enumerate(chunk):
                sums[index] += elementary.total(magnitude)
        return sums

    def count_above(self, bounds: Sequence[Sequence[float]]) -> list[list[int]]:
        """Entries with |delta| above each bound, per expert; bounds count as float32."""
        counts = [[0] * len(row) for row in bounds]
        for chunk in self.magnitudes():
            for index, magnitude in enumerate(chunk):
                for k, bound in enumerate(bounds[index]):
                    counts[index][k] += int((magnitude > float(np.float32(bound))).sum())
        return counts

    def vote_balance(self, decisions: Sequence[Decision], weights: Sequence[float]) -> int:
        """Entries whose weighted sum is above 0 minus those below."""
        return sum(
            elections.sign_balance(elections.vote(self.pruned(decisions, start, stop), weights))
            for start, stop in self.spans(needs_of(decisions))
        )

    def merge(
        self, decisions: Sequence[Decision], outcome: Outcome, dtype: str
    ) -> Iterator[MergedChunk]:
        """The merged tensor, chunk by chunk, rounded once to `dtype` (safetensors' name)."""
        for start, base, merged in self.merged(decisions, outcome):
            rounded = merged.to(torch_dtype(dtype))
            yield MergedChunk(
                start,
                rounded.cpu().view(torch.uint8).numpy().data,
                bool(torch.isfinite(rounded).all()),
                elementary.total((merged - base).square()),
                elementary.total(base.square()),
            )

    def merged(
        self, decisions: Sequence[Decision], outcome: Outcome
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """(start, base, merged) of every chunk, both (n,) float32 on the stream's device."""
        for start, stop in self.spans(needs_of(decisions, outcome)):
            base = self.base(start, stop)
            if outcome.blend is not None:
                yield start, base, self._blended(outcome.blend, start, stop)
                continue
            merged = self._combined(outcome.combination, self.pruned(decisions, start, stop), start)
            if outcome.strength != 1.0:
                merged = merged * outcome.strength
            yield (
                start,
                base,
                (base if outcome.base_weight == 1.0 else base * outcome.base_weight) + merged,
            )

    def _combined(
        self, combination: Combination, deltas: list[torch.Tensor], start: int
    ) -> torch.Tensor:
        if not isinstance(combination, Eager):
            return combine(combination, deltas, start)
        shaped = [self.shaped(delta, combination.needs) for delta in deltas]
        return combine(combination, shaped, start).reshape(-1)

    def _blended(self, blend: Eager, start: int, stop: int) -> torch.Tensor:
        models = [
            self.shaped(self.read(model, start, stop), blend.needs)
            for model in self.stream.family.models
        ]
        return blend.function(models[0], models[1:], start).reshape(-1)

    def gram(self) -> np.ndarray:
        """Inner products in float64 of the base and the experts' changes, (1 + E, 1 + E), the base
        first. Raises NonFinite naming the model."""
        total = np.zeros((1 + self.experts, 1 + self.experts))
        for start, stop in self.spans(multiple=grams.BLOCK):
            total = grams.added(total, [self.base(start, stop), *self.deltas(start, stop)])
        if not np.isfinite(total).all():
            raise self.culprit(NonFinite("a value is NaN or infinite"))
        return total

    def pruned_norms(self, expert: int, decision: Decision) -> tuple[float, float]:
        """Sums of |delta| and of |pruned delta| of one expert, in float64."""
        before = after = 0.0
        for start, stop in self.spans(needs_of([decision])):
            delta = self.delta(expert, start, stop)
            before += elementary.total(delta.abs())
            after += elementary.total(self._apply(decision, delta, start).abs())
        return before, after

    def spread(self, decisions: Sequence[Decision]) -> Spread:
        """A reader whose one expert's change is the variance of the experts' pruned changes."""
        return SpreadReader(self, decisions)

    def energies(self, decisions: Sequence[Decision], cut: Cut) -> np.ndarray:
        """Sums of squares of every expert's pruned changes where their variance is inside a cut,
        (E,) float64."""
        total = np.zeros(self.experts)
        for start, stop in self.spans(needs_of(decisions)):
            for index, delta in enumerate(
                masks.selected(self.pruned(decisions, start, stop), cut, start)
            ):
                total[index] += elementary.total(delta * delta)
        return total

    def unified_norms(self, decisions: Sequence[Decision], unified: Unified) -> tuple[float, float]:
        """Sums of |change| of a task and of |its share of the unified change|, in float64."""
        change = masked = 0.0
        for start, stop in self.spans(needs_of(decisions)):
            deltas = masks.weigh(self.pruned(decisions, start, stop), unified.weights)
            union = masks.unified(deltas, unified.zero_is_negative)
            own = deltas[unified.task]
            change += elementary.total(own.abs())
            masked += elementary.total((masks.has_sign_of(own, union) * union).abs())
        return change, masked

    def shared_counts(self, decisions: Sequence[Decision], epsilon: float) -> np.ndarray:
        """Per expert, entries that others changed too and entries that it changed alone, by more
        than epsilon, (E, 2) int64."""
        total = np.zeros((self.experts, 2), dtype=np.int64)
        for start, stop in self.spans(needs_of(decisions)):
            active = [delta.abs() > epsilon for delta in self.pruned(decisions, start, stop)]
            together = sum(own.to(torch.int32) for own in active)
            for index, own in enumerate(active):
                shared = int((own & (together > 1)).sum())
                total[index] += (shared, int(own.sum()) - shared)
        return total

    def read(self, model: Checkpoint, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) of one model's tensor, (n,) float32 on the stream's device."""
        return self.stream.source.read(model, self.entry.name, start, stop).float()

    def culprit(self, error: NonFinite) -> NonFinite:
        """The error that names the model and value behind `error`, if an input is to blame."""
        step = self.stream.chunk
        for model in self.stream.family.models:
            for start in range(0, self.numel, step):
                values = self.read(model, start, min(start + step, self.numel))
                bad = torch.nonzero(~torch.isfinite(values))
                if bad.numel():
                    at = int(bad[0])
                    owner, tensor = model.origin(self.entry.name)
                    return NonFinite(
                        f"{owner}: tensor {tensor} holds {values[at].item()} at "
                        f"flat index {start + at}; use a sound copy of the model, or leave it out"
                    )
        return error

    def _values_at(self, sweep: Sweep, ranks: Sequence[int], rows: int) -> list[list[float]]:
        values = statistics(sweep, [ranks] * rows)
        return [[one.value for one in row] for row in values]

    def _delta(self, expert: int, start: int, stop: int, base: torch.Tensor | None) -> torch.Tensor:
        if expert in self._memory:
            return self._memory[expert]
        base = self.base(start, stop) if base is None else base
        delta = self.read(self.stream.family.experts[expert], start, stop) - base
        if self._resident:
            self._memory[expert] = delta
        return delta


class SpreadReader(TensorReader):
    """Reads the variance over the experts as if it were the change of one.

    Args:
        reader: of the experts.
        decisions: what is pruned before.
    """

    def __init__(self, reader: TensorReader, decisions: Sequence[Decision]) -> None:
        super().__init__(reader.stream, reader.entry)
        self.experts = 1
        self._reader, self._decisions = reader, decisions
        self._resident = False

    def spans(self, needs: Needs = "chunk", multiple: int = 1) -> Iterator[tuple[int, int]]:
        """As TensorReader."""
        return self._reader.spans(widest([needs, needs_of(self._decisions)]), multiple)

    def differing(self, share: float = 0.0) -> int:
        """Entries whose variance is above 0.

        Args:
            share: of them, if their cut is what will be asked for next.
        """
        ((count,),) = self.count_above([[0.0]])
        return count

    def most_energy(self) -> float:
        """No less than the sum of squares of all experts' changes; infinity if none was counted."""
        return math.inf

    def deltas(self, start: int, stop: int) -> list[torch.Tensor]:
        """As TensorReader."""
        return [masks.variance(self._reader.pruned(self._decisions, start, stop))]

    def delta(self, expert: int, start: int, stop: int) -> torch.Tensor:
        """As TensorReader."""
        return self.deltas(start, stop)[0]
