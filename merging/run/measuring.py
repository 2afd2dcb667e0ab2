"""A recipe lowered over one family: errors name the model, and what is kept is noted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from merging.declarations.methods import Pruned, Pruning, Shares
from merging.declarations.retention import Retention
from merging.engines.eager import Stream, TensorReader
from merging.errors import MergeError, NonFinite
from merging.instructions import Decision, Outcome
from merging.recipe import Recipe
from merging.run.lowering import Lowering, lower, lower_shares


@dataclass(frozen=True)
class Measured:
    """A recipe that has measured what it must before the first tensor is merged.

    Attributes:
        pruned: what becomes of the changes of every tensor that is decided and not yet taken.
    """

    lowering: Lowering
    pruned: dict[str, Pruned] = field(default_factory=dict)

    def decide(self, reader: TensorReader) -> tuple[Sequence[Decision], Outcome]:
        """What becomes of one tensor: a decision per expert, and how they are combined.

        Raises:
            NonFinite: a value is NaN or infinite; the model and the tensor are named.
        """
        try:
            pruned = self.lowering.prune(reader)
            self.pruned[reader.entry.name] = pruned
            return pruned.decisions, self.lowering.combine(reader, pruned.decisions)
        except NonFinite as error:
            raise reader.culprit(error) from None

    def retention(self, reader: TensorReader) -> tuple[Retention, ...]:
        """Per expert, what is kept of a tensor that was decided, which is told once; empty where
        that is told for the whole model (`lowering.pruning.retention`), or not counted."""
        return tuple(self.pruned.pop(reader.entry.name).count(reader))


def measure(recipe: Recipe, stream: Stream) -> Measured:
    """What must be known of all tensors before the first one is merged.

    Raises:
        NonFinite: a value is NaN or infinite; the model and the tensor are named.
    """
    try:
        return Measured(lower(recipe, stream))
    except NonFinite as error:
        raise _culprit(stream, error) from None


def measure_shares(recipe: Recipe, stream: Stream) -> tuple[Pruning, Shares]:
    """As `measure`, where a recipe asks for a container."""
    try:
        return lower_shares(recipe, stream)
    except NonFinite as error:
        raise _culprit(stream, error) from None


def _culprit(stream: Stream, error: NonFinite) -> MergeError:
    """The error that names the model and tensor behind a non-finite measurement."""
    for entry in stream.family.merged:
        named = stream.open(entry).culprit(error)
        if named is not error:
            return named
    return error
