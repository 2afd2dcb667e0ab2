"""One tensor measured and merged by the loops; through torch where they lack a step."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from merging import kernels
from merging.checkpoints.checkpoint import WIDTHS
from merging.declarations.measures import Spread
from merging.engines.eager import MergedChunk
from merging.engines.fused import sizes
from merging.engines.fused.filling import fill_rings, offset_of, rule_of, runs, take_part
from merging.engines.fused.profiling import ProfilingReader
from merging.engines.fused.raw import TYPES
from merging.engines.fused.selecting import SelectingReader
from merging.instructions import (
    Clip,
    Combination,
    Competition,
    Decision,
    Draw,
    Eager,
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
)
from merging.instructions.masks import Masks
from merging.selection.statistics import HALF, UPPER
from merging.selection.tied import KEEP_ALL, Cut


class FusedReader(SelectingReader, ProfilingReader):
    """Measures and merges one tensor through the fused loops."""

    def sweep(
        self, buckets: Sequence[Sequence[int]], decisions: Sequence[Decision] | None = None
    ) -> list[dict[int, np.ndarray]]:
        """As TensorReader."""
        if not self._runs(decisions):
            return super().sweep(buckets, decisions)
        raw_buckets = [np.array([_raw_bucket(b) for b in row], dtype=np.int32) for row in buckets]
        raw = [np.zeros((len(row), 1 << 16), dtype=np.int64) for row in buckets]
        for start, stop in self._pieces_of(decisions):
            for index, (row, counts) in enumerate(zip(raw_buckets, raw, strict=True)):
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

    def score_sweep(
        self, decisions: Sequence[Decision], game: Competition, buckets: Sequence[Sequence[int]]
    ) -> list[dict[int, np.ndarray]]:
        """As TensorReader."""
        if not self._runs(decisions):
            return super().score_sweep(decisions, game, buckets)
        most = max(len(row) for row in buckets)
        bucket_table = np.full((self.experts, most), -2, dtype=np.int32)
        for index, row in zip(game.active, buckets, strict=True):
            bucket_table[index, : len(row)] = row
        counts = np.zeros((self.experts, most, 1 << 16), dtype=np.int64)
        rule = rule_of(Outcome(game))
        for start, stop in self._pieces_of(decisions):
            experts = self._experts(decisions, game, start, stop)
            self._call(
                "amalgam_score_histogram", start, stop, experts, self.experts, ctypes.byref(rule),
                start, stop - start, most, bucket_table.ctypes.data, counts.ctypes.data,
            )  # fmt: skip
        return [
            {bucket: counts[index, k] for k, bucket in enumerate(row)}
            for index, row in zip(game.active, buckets, strict=True)
        ]

    def pruned_norms(self, expert: int, decision: Decision) -> tuple[float, float]:
        """As TensorReader."""
        if not self._runs([decision]):
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

    def _runs(self, decisions: Sequence[Decision] | None, outcome: Outcome | None = None) -> bool:
        """True where the loops have every step, and room for what they hold of this tensor."""
        drawn = any(isinstance(decision, Ranked) for decision in decisions or ())
        return runs(decisions, outcome) and not (drawn and self.numel > sizes.DRAWN)

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

    def spread(self, decisions: Sequence[Decision]) -> Spread:
        """As TensorReader."""
        if any(decision != Keep() for decision in decisions):
            return super().spread(decisions)
        return self.stream.open_spread(self.entry)

    def energies(self, decisions: Sequence[Decision], cut: Cut) -> np.ndarray:
        """As TensorReader."""
        if not self._runs(decisions):
            return super().energies(decisions, cut)
        sums = np.zeros(self.experts)
        self._mask_sums(decisions, Selected((1.0,) * self.experts, cut), sums)
        return sums

    def unified_norms(self, decisions: Sequence[Decision], unified: Unified) -> tuple[float, float]:
        """As TensorReader."""
        if not self._runs(decisions):
            return super().unified_norms(decisions, unified)
        sums = np.zeros(2)
        self._mask_sums(decisions, unified, sums)
        return float(sums[0]), float(sums[1])

    def shared_counts(self, decisions: Sequence[Decision], epsilon: float) -> np.ndarray:
        """As TensorReader."""
        if not self._runs(decisions):
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

    def vote_balance(self, decisions: Sequence[Decision], weights: Sequence[float]) -> int:
        """As TensorReader."""
        if not self._runs(decisions):
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
        if not self._runs(decisions, outcome):
            with self.stream.whole if needs_of(decisions, outcome) != "chunk" else nullcontext():
                yield from super().merge(decisions, outcome, dtype)
            return
        for start, stop in self._pieces_of(decisions, sizes.AT_ONCE):
            rule = self._rule(outcome, start, stop)
            size = (stop - start) * WIDTHS[dtype]
            values = self.stream.buffer(sizes.MERGED, max(size, 1))[:size]
            drift = np.zeros(2)
            bad = 0
            if stop > start:
                experts = self._experts(decisions, outcome.combination, start, stop)
                bad = self._call(
                    "amalgam_merge", start, stop, experts, self.experts, ctypes.byref(rule),
                    start, stop - start, values.ctypes.data, TYPES[dtype], drift.ctypes.data,
                )  # fmt: skip
            yield MergedChunk(start, values.data, bad == 0, float(drift[0]), float(drift[1]))

    def _rule(self, outcome: Outcome, start: int, stop: int) -> kernels.Rule:
        """How the experts of a piece combine."""
        rule = rule_of(outcome)
        combination = outcome.combination
        if isinstance(combination, Selected) and combination.cut != KEEP_ALL:
            assert isinstance(combination.cut, Cut)  # only kernels of GPUs find cuts themselves
            selection = kernels.Expert()
            fill_rings(selection, Rings((combination.cut,), (1.0,)), start, stop)
            rule.selection = ctypes.pointer(selection)
        return rule

    def _pieces_of(
        self, decisions: Sequence[Decision] | None, most: int = 1 << 62
    ) -> Iterator[tuple[int, int]]:
        """Pieces for some decisions, see `_pieces`; draws by rank are made before the first."""
        for index, decision in enumerate(decisions or ()):
            if isinstance(decision, Ranked):
                self._bits(index, decision)
        return self._pieces(offset_of(decisions), most)

    def _experts(
        self, decisions: Sequence[Decision], combination: Combination, start: int, stop: int
    ) -> Any:
        experts = (kernels.Expert * self.experts)()
        for index, decision in enumerate(decisions):
            self._fill(experts[index], index, decision, start, stop)
            if not isinstance(combination, Eager) and combination.weights:
                experts[index].weight = combination.weights[index]
        if isinstance(combination, Competition):
            take_part(experts, combination)
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
            fill_rings(expert, decision, start, stop)


def _raw_bucket(bucket: int) -> int:
    return -1 if bucket == UPPER else bucket - HALF


def _from_raw(bucket: int, counts: np.ndarray) -> np.ndarray:
    """Magnitudes have no sign: their upper buckets are the upper half of the keys'."""
    if bucket != UPPER:
        return counts
    return np.concatenate([np.zeros(HALF, dtype=np.int64), counts[:HALF]])
