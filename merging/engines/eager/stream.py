"""The tensors of a family, one reader each, several at a time where there are workers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

import numpy as np

from merging.checkpoints import Entry, Family
from merging.declarations.methods import Pruning
from merging.engines.eager.reader import MergedChunk, TensorReader
from merging.engines.eager.work import Work
from merging.engines.sources import Queues
from merging.evidence import whole_model
from merging.instructions import Competition, Decision, Outcome, competitions
from merging.later import torch
from merging.selection.statistics import upper_histogram

GPU_WORKERS = 3  # threads: one reads while one copies and one computes

T = TypeVar("T")
J = TypeVar("J")
Decide = Callable[["TensorReader"], tuple[Sequence[Decision], Outcome]]


class Stream(Work):
    """The merged tensors of a family, measured and merged; arguments as `Work`.

    Attributes:
        cuts_may_wait: False where something is measured by the cuts of pruned changes, so that they
            must be known before a merge.
    """

    engine = "eager"

    def __init__(self, family: Family, **arguments: Any) -> None:
        super().__init__(family, **arguments)
        # torch has threads of its own; CUDA alone has queues of work
        self.workers = GPU_WORKERS if self.device.startswith("cuda") else 1
        self._queues = Queues(self.device, self.workers)
        self._samples: dict[int, np.ndarray | None] = {}
        self.cuts_may_wait = True

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
        """What `measure` finds out of the family alone: once where the source has a place for it,
        as while the family stays in a device's memory. The work that is not done again counts as
        done.

        Args:
            key: what was measured, and all that it depends on besides the family.
        """
        findings = self.source.findings
        if findings is None:
            return measure()
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
