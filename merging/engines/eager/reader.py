"""One tensor measured and merged, through torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from merging.checkpoints.checkpoint import torch_dtype
from merging.declarations.measures import Spread
from merging.engines.eager.measuring import Measuring
from merging.instructions import (
    Combination,
    Decision,
    Eager,
    Needs,
    Outcome,
    combine,
    elementary,
    masks,
    needs_of,
)
from merging.instructions.eager import widest
from merging.later import torch


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


class TensorReader(Measuring):
    """Measures and merges one tensor of a family, through torch.

    Attributes:
        finds_cuts: decisions may be `Ranks`.
    """

    finds_cuts = False

    def spread(self, decisions: Sequence[Decision]) -> Spread:
        """A reader whose one expert's change is the variance of the experts' pruned changes."""
        return SpreadReader(self, decisions)

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
