"""One tensor of a family in float32, chunk by chunk, through torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merging.checkpoints import Checkpoint, Entry
from merging.engines.eager.work import Work
from merging.errors import NonFinite
from merging.instructions import Decision, Eager, Needs, Ranked, apply, needs_of
from merging.later import torch


class Chunks:
    """Reads the base, the experts and their changes, chunk by chunk.

    Args:
        work: whose tensor it is, and how it is read.
        entry: the tensor.
    """

    def __init__(self, work: Work, entry: Entry) -> None:
        self.entry = entry
        self.numel = entry.numel
        self.experts = len(work.family.experts)
        self.stream = work
        self._resident = entry.numel <= work.resident
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

    def magnitudes(
        self, decisions: Sequence[Decision] | None = None
    ) -> Iterator[list[torch.Tensor]]:
        """One pass over the magnitudes of the pruned deltas, all experts in step."""
        for start, stop in self.spans(needs_of(decisions)):
            yield [delta.abs() for delta in self.pruned(decisions, start, stop)]

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

    def _apply(self, decision: Decision, delta: torch.Tensor, start: int) -> torch.Tensor:
        if not isinstance(decision, Eager | Ranked):
            return apply(decision, delta, start)
        return apply(decision, self.shaped(delta, decision.needs), start).reshape(-1)

    def _delta(self, expert: int, start: int, stop: int, base: torch.Tensor | None) -> torch.Tensor:
        if expert in self._memory:
            return self._memory[expert]
        base = self.base(start, stop) if base is None else base
        delta = self.read(self.stream.family.experts[expert], start, stop) - base
        if self._resident:
            self._memory[expert] = delta
        return delta
