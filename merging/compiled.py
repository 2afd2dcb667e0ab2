"""The engine's compiled twin for GPUs: raw tensors in, merged tensors out, one kernel a chunk.

Eagerly, each operation of a method reads and writes the whole chunk. Here torch compiles a chunk's
arithmetic into one kernel, made of the same functions of `merging.methods`. What a kernel is made
for is a `Shape`: which kinds of decisions meet which rule. Every number enters as an argument, so
one kernel serves all tensors of a family. Thresholds are selected as by the fused loops on the CPU:
a sample brackets the cut, one kernel counts and marks, and the few that are marked are sorted.

PCB's competitions, and whatever else has no kernel here, run as in `merging.engine`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from merging import brackets
from merging.checkpoints import Family
from merging.checkpoints.checkpoint import torch_dtype
from merging.decisions import Competition, Decision, Draw, Election, Keep, Outcome, Rings
from merging.engine import MergedChunk, Stream, TensorReader
from merging.errors import NonFinite
from merging.later import torch
from merging.methods import linear, random, ties
from merging.selection import KEEP_ALL, OrderStatistic

if TYPE_CHECKING:
    Kernel = Callable[..., tuple[torch.Tensor, torch.Tensor]]

log = logging.getLogger(__name__)

BACKEND = "inductor"
WORTH_COMPILING = 1 << 28  # elements x experts from which kernels pay for their making
_NO_TIE = KEEP_ALL.tie_stop
_VARIANTS = 200


def is_worthwhile(family: Family, device: str) -> bool:
    """True where a GPU's kernels pay within one merge, and can be made."""
    work = sum(entry.numel for entry in family.merged) * len(family.experts)
    return device.startswith("cuda") and work >= WORTH_COMPILING and can_compile(device)


@functools.cache
def can_compile(device: str) -> bool:
    """True where torch's compiler works: tried on a handful of numbers."""
    try:
        few = torch.arange(64, dtype=torch.float32, device=device)
        inside, _ = marking_kernel(BACKEND)(few, few + 1, torch.tensor([0, 1], device=device))
        return not bool(inside.any())
    except Exception as error:  # whatever a compiler, or the lack of one, may raise
        log.warning("GPU kernels are not available: %s", str(error).splitlines()[0])
        return False


@dataclass(frozen=True)
class Shape:
    """What a kernel is made for; everything else is an argument.

    Attributes:
        rings: per expert, the number of its rings; 0 keeps everything, -1 draws at random.
        election: None for a sum; else TIES with these (normalize, zero_is_positive).
        output: safetensors' name of the output type.
    """

    rings: tuple[int, ...]
    election: tuple[bool, bool] | None
    output: str


class CompiledStream(Stream):
    """A stream whose readers use compiled kernels."""

    engine = "compiled"

    def open(self, entry: Any) -> TensorReader:
        """The reader of one merged tensor."""
        return CompiledReader(self, entry)


class CompiledReader(TensorReader):
    """Measures and merges one tensor through compiled kernels."""

    _held: tuple[tuple[int, int], list[torch.Tensor]] | None = None

    def raw(self, start: int, stop: int) -> list[torch.Tensor]:
        """Elements [start, stop) of all models as stored, base first, on the device."""
        if self._held is None or self._held[0] != (start, stop):
            self._held = None  # one piece at a time
            models, name = self.stream.family.models, self.entry.name
            pieces = [self.stream.source.read(model, name, start, stop) for model in models]
            self._held = (start, stop), pieces
        return self._held[1]

    def read(self, model: Any, start: int, stop: int) -> torch.Tensor:
        """As TensorReader, from what is at hand."""
        if self._held is not None and self._held[0] == (start, stop):
            return self._held[1][self.stream.family.models.index(model)].float()
        return super().read(model, start, stop)

    def order_statistics(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]]:
        """As TensorReader."""
        try:
            return self._from_brackets(ranks) or super().order_statistics(ranks)
        except NonFinite as error:
            raise self.culprit(error) from None

    def merge(
        self, decisions: Sequence[Decision], outcome: Outcome, dtype: str
    ) -> Iterator[MergedChunk]:
        """As TensorReader."""
        if isinstance(outcome.combination, Competition):
            yield from super().merge(decisions, outcome, dtype)
            return
        for start, rounded, sums in self.rounded(decisions, outcome, dtype):
            bad, changed, squared = sums.tolist()
            values = rounded.cpu().view(torch.uint8).numpy().data
            yield MergedChunk(start, values, bad == 0, changed, squared)

    def rounded(
        self, decisions: Sequence[Decision], outcome: Outcome, dtype: str
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """(start, merged chunk in the output type, its sums) on the device.

        Sums: (3,) float64, how many values are not finite, (merged - base) squared, base squared.
        """
        kernel = merging_kernel(shape_of(decisions, outcome, dtype), BACKEND)
        numbers, places = _numbers(decisions, outcome)
        numbers, places = numbers.to(self.stream.device), places.to(self.stream.device)
        for start, stop in self.spans():
            first = torch.tensor(start, device=self.stream.device)
            yield start, *kernel(self.raw(start, stop), numbers, places, first)

    def _from_brackets(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]] | None:
        """The same from one pass; None where the tensor is small or a bracket missed."""
        if self.numel <= brackets.EVERYTHING:
            return None
        wanted = self._brackets(ranks)
        mark = marking_kernel(BACKEND)
        pieces: list[list[list[torch.Tensor]]] = [[[] for _ in row] for row in wanted]
        counts = torch.zeros(
            len(wanted), max(map(len, wanted)), 2, dtype=torch.int64, device=self.stream.device
        )
        for start, stop in self.spans():
            base, *experts = self.raw(start, stop)
            for index, row in enumerate(wanted):
                for k, bounds in enumerate(row):
                    limits = torch.tensor(bounds, dtype=torch.int32, device=base.device)
                    inside, found = mark(base, experts[index], limits)
                    counts[index, k] += found
                    place = torch.nonzero(inside).squeeze(1)
                    delta = experts[index][place].float() - base[place].float()
                    pieces[index][k].append(delta.abs().view(torch.int32))
        told = counts.tolist()  # the one wait for the device
        if any(bad for row in told for _, bad in row):
            raise NonFinite("a value is NaN or infinite")
        result = []
        for index, asked in enumerate(ranks):
            keys = [torch.cat(one).sort().values for one in pieces[index]]
            located = [_locate(keys, told[index], self.numel, rank) for rank in asked]
            if None in located:
                return None
            result.append([statistic for statistic in located if statistic is not None])
        return result

    def _brackets(self, ranks: Sequence[Sequence[int]]) -> list[list[brackets.Bracket]]:
        """Per expert, disjoint brackets for its ranks, from a sample of every chunk."""
        stride = brackets.sample_stride(self.numel)
        samples = []
        for start, stop in self.spans():
            base, *experts = (piece[-start % stride :: stride] for piece in self.raw(start, stop))
            samples.append(torch.stack([expert.float() - base.float() for expert in experts]))
        bits = torch.cat(samples, 1).abs().view(torch.int32).sort(1).values.cpu().numpy()
        return [
            brackets.brackets(row.view(np.uint32), self.numel, wanted)
            for row, wanted in zip(bits, ranks, strict=True)
        ]


def _locate(
    keys: Sequence[torch.Tensor], counts: Sequence[Sequence[int]], numel: int, rank: int
) -> OrderStatistic | None:
    """As `brackets.locate`, of ascending keys on the device; `counts` begin with those above."""
    for inside, (above, *_) in zip(keys, counts, strict=False):
        size = inside.numel()
        place = rank - (numel - above - size)
        if 0 <= place < size:
            key = inside[place]
            below, up_to = (
                torch.searchsorted(inside, key),
                torch.searchsorted(inside, key, right=True),
            )
            bits, first, last = torch.stack([key.long(), below, up_to]).tolist()
            value = float(np.uint32(bits).view(np.float32))
            return OrderStatistic(value, above + size - last, last - first)
    return None


def shape_of(decisions: Sequence[Decision], outcome: Outcome, dtype: str) -> Shape:
    """The kernel that some decisions and their outcome need."""
    combination = outcome.combination
    election = None
    if isinstance(combination, Election):
        election = combination.normalize, combination.zero_is_positive
    rings = tuple(
        len(one.cuts) if isinstance(one, Rings) else -isinstance(one, Draw) for one in decisions
    )
    return Shape(rings, election, dtype)


def _numbers(decisions: Sequence[Decision], outcome: Outcome) -> tuple[torch.Tensor, torch.Tensor]:
    """What `merging_kernel`'s kernels take in this order: factors (float32) and places (int64)."""
    combination = outcome.combination
    normalize = getattr(combination, "normalize", False)
    divisor = linear.divisor(combination.weights, normalize)
    numbers = [outcome.strength, outcome.base_weight, divisor, *combination.weights]
    places: list[int] = []
    for decision in decisions:
        if isinstance(decision, Keep):
            numbers.append(decision.scale)
        elif isinstance(decision, Draw):
            numbers.append(decision.scale)
            places += [*decision.keys, random.limit(decision.density)]
        else:
            for cut, factor in zip(decision.cuts, decision.factors, strict=True):
                numbers += [cut.value, factor]
                places.append(min(cut.tie_stop, _NO_TIE) - decision.offset)
    return torch.tensor(numbers, dtype=torch.float32), torch.tensor(places, dtype=torch.int64)


@functools.cache
def merging_kernel(shape: Shape, backend: str) -> Kernel:
    """The kernel that prunes, combines, rounds and sums up a chunk.

    Args of the kernel: raw tensors (base first), `_numbers`' two, and the first element's index.
    Returns: as `CompiledReader.rounded` yields, without the start.
    """

    def kernel(
        raw: list[torch.Tensor], numbers: torch.Tensor, places: torch.Tensor, first: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        base = raw[0].float()
        experts = len(shape.rings)
        strength, base_weight, divisor = numbers[0], numbers[1], numbers[2]
        weights = [numbers[3 + index] for index in range(experts)]
        index = torch.arange(base.numel(), device=base.device) + first
        n, p = 3 + experts, 0
        pruned = []
        for expert, rings in zip(raw[1:], shape.rings, strict=True):
            delta = expert.float() - base
            if rings <= 0:
                if rings == 0:
                    scaled = delta * numbers[n]
                else:
                    keys = places[p].to(torch.int32), places[p + 1].to(torch.int32)
                    keep = random.kept_at(index, *keys, places[p + 2])
                    scaled, p = random.drop(delta, keep, numbers[n]), p + 3
                pruned.append(scaled)
                n += 1
                continue
            magnitude = delta.abs()
            factor = torch.zeros_like(delta)
            for k in reversed(range(rings)):
                value, ties_before = numbers[n + 2 * k], places[p + k]
                inside = (magnitude > value) | ((magnitude == value) & (index < ties_before))
                factor = torch.where(inside, numbers[n + 2 * k + 1], factor)
            pruned.append(factor * delta)
            n, p = n + 2 * rings, p + rings
        if shape.election is None:
            merged = linear.add_up(pruned, weights) / divisor
        else:
            normalize, zero_is_positive = shape.election
            merged = ties.elect_and_merge(
                pruned, weights, normalize=normalize, zero_is_positive=zero_is_positive
            )
        merged = base * base_weight + merged * strength
        rounded = merged.to(torch_dtype(shape.output))
        sums = [
            (~torch.isfinite(rounded)).sum(dtype=torch.float64),
            (merged - base).square().sum(dtype=torch.float64),
            base.square().sum(dtype=torch.float64),
        ]
        return rounded, torch.stack(sums)

    return _compile(kernel, backend)


@functools.cache
def marking_kernel(backend: str) -> Kernel:
    """The kernel that compares one expert's |delta| with a bracket.

    Args of the kernel: the raw base and expert, and the bracket's (lowest, highest) bits, int32.
    Returns: (n,) bool, which lie inside; (2,) int64, how many lie above and are not finite.
    """

    def kernel(
        base: torch.Tensor, expert: torch.Tensor, limits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        bits = (expert.float() - base.float()).abs().view(torch.int32)
        inside = (bits >= limits[0]) & (bits <= limits[1])
        counts = [(bits > limits[1]).sum(), (bits >= brackets.INFINITE).sum()]
        return inside, torch.stack(counts)

    return _compile(kernel, backend)


def _compile(kernel: Kernel, backend: str) -> Kernel:
    # products and sums round one by one, as everywhere else
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "0")
    # all shapes share one code, whose variants torch counts; past its limit it would fail
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _VARIANTS)
    return torch.compile(kernel, dynamic=True, fullgraph=True, backend=backend)


__all__ = ["CompiledReader", "CompiledStream", "is_worthwhile"]
