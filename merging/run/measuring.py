"""A recipe's two stages over one family: what they measure first, and what they decide."""

from __future__ import annotations

from dataclasses import dataclass

from merging.declarations.retention import Kept
from merging.engines.eager import Stream, TensorReader
from merging.errors import MergeError, NonFinite
from merging.instructions import Decision, Outcome
from merging.recipe import Recipe
from merging.stages import Consensus, Pruner, decide, make_consensus, make_pruner


@dataclass(frozen=True)
class Stages:
    """The pruner and the consensus rule of a recipe."""

    recipe: Recipe
    pruner: Pruner
    consensus: Consensus

    @property
    def passes(self) -> int:
        """How often all tensors are read before the last is merged."""
        return self.pruner.passes + self.consensus.passes + 1

    @property
    def notes(self) -> list[str]:
        """What was met in the family and the recipe's author should know."""
        return [*self.pruner.notes, *self.consensus.notes]

    def measure(self, stream: Stream) -> None:
        """What must be known of all tensors before the first one is merged.

        Raises:
            NonFinite: a value is NaN or infinite; the model and the tensor are named.
        """
        try:
            self.pruner.prepare(stream)
            self.consensus.prepare(stream, self.pruner)
        except NonFinite as error:
            raise _culprit(stream, error) from None

    def decide(self, reader: TensorReader) -> tuple[list[Decision], Outcome]:
        """What becomes of one tensor: a decision per expert, and how they are combined.

        Raises:
            NonFinite: as `measure`.
        """
        try:
            return decide(self.recipe, self.pruner, self.consensus, reader)
        except NonFinite as error:
            raise reader.culprit(error) from None

    def kept(self, tensor: str) -> tuple[Kept, ...]:
        """Per expert, what is kept of a tensor that was decided; empty where it is not pruned."""
        return tuple(self.pruner.kept.get(tensor, ()))

    def kept_of_all(self) -> tuple[Kept, ...]:
        """Per expert, what is kept of all tensors; empty where that is told tensor by tensor."""
        return tuple(self.pruner.kept.get("", ()))


def stages_of(recipe: Recipe) -> Stages:
    """The stages of a recipe, before they have measured anything."""
    return Stages(recipe, make_pruner(recipe), make_consensus(recipe))


def _culprit(stream: Stream, error: NonFinite) -> MergeError:
    """The error that names the model and tensor behind a non-finite measurement."""
    for entry in stream.family.merged:
        named = stream.open(entry).culprit(error)
        if named is not error:
            return named
    return error
