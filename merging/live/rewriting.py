"""A recipe written into tensors that lie in memory: only those that it changes.

Every value is merged from the base in float32 and rounded once, as in a file: after a hundred
changes of a slider the bytes are those of a merge that is written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from merging.checkpoints import Entry, Family
from merging.checkpoints.checkpoint import torch_dtype
from merging.declarations.schedules import Schedule
from merging.declarations.values import value_at
from merging.engines.eager import MergedChunk, ProgressCallback, Stream, TensorReader
from merging.engines.sources import FINDINGS, Latest, family_key
from merging.errors import NonFinite
from merging.instructions import Decision, Outcome
from merging.methods import PRUNERS
from merging.recipe import Recipe
from merging.run.lowering import Lowering, passes
from merging.run.measuring import measure
from merging.run.tensors import overflow, specs_of


@dataclass
class Memory:
    """The tensors of a result in memory, and what was written into them.

    Attributes:
        places: (n,) values by the tensor's name, in the type that the network computes in.
        family: key of the family that was merged last; None while they are the base's.
        written: by tensor, the settings and the decisions that its values follow from.
        version: another one whenever a value has changed since.
        pruned: by tensor, how it was pruned last, and what that followed from.
        findings: what was measured of the family alone.
    """

    places: Mapping[str, torch.Tensor]
    family: Any = None
    written: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    version: int = 0
    pruned: dict[str, tuple[Any, Sequence[Decision]]] = field(default_factory=dict)
    findings: dict[Hashable, Any] = field(default_factory=partial(Latest, FINDINGS))


def rewrite(
    memory: Memory,
    recipe: Recipe,
    family: Family,
    engine: Callable[..., Stream],
    *,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
    **arguments: Any,
) -> list[str]:
    """Merges a recipe into the memory; the names of the tensors that were rewritten.

    Ended early, the tensors hold different merges; the next call that is not ended mends that.

    Args:
        engine: what runs the arithmetic; all write the same bytes.
        arguments: more of them for the engine.

    Raises:
        NonFinite: a value is NaN or infinite, or too large for its type.
        Cancelled: `cancel` was set.
    """
    stream = engine(
        family,
        device=device,
        passes=passes(recipe) + 1,
        progress=progress,
        cancel=cancel,
        **arguments,
    )
    if memory.family != family_key(family):
        restore(memory, family)
        memory.family = family_key(family)
    measured = measure(recipe, stream)
    dtypes = {spec.name: spec.dtype for spec in specs_of(family, recipe)}
    due = [entry for entry in family.merged if entry.name in memory.places]
    settings = {entry.name: _settings(recipe, measured.lowering, entry) for entry in due}
    due = [e for e in due if not _same(memory.written.get(e.name, (None,))[0], settings[e.name])]
    decided: dict[str, tuple[Sequence[Decision], Outcome]] = {}

    def decide(reader: TensorReader) -> tuple[Sequence[Decision], Outcome]:
        name = reader.entry.name
        decisions = _pruned(memory, measured.lowering, reader, settings[name][0])
        decided[name] = decisions, measured.lowering.combine(reader, decisions)
        return decided[name]

    def take(reader: TensorReader, chunks: Iterable[MergedChunk]) -> bool:
        name = reader.entry.name
        own = settings[name], decided.pop(name)
        before = memory.written.pop(name, (None, None))
        if not _same(before[1], own[1]):
            memory.version += 1
            _write(memory.places[name], reader, chunks, torch_dtype(dtypes[name]))
        memory.written[name] = own
        return not _same(before[1], own[1])

    changed = stream.merge(due, decide, dtypes, take)
    return [entry.name for entry, new in zip(due, changed, strict=True) if new]


def restore(memory: Memory, family: Family) -> None:
    """Writes the base's values wherever something else was written."""
    memory.version += 1
    for name in memory.written:
        place = memory.places[name]
        place.copy_(family.base.read_flat(name, 0, place.numel()))
    memory.written.clear()
    memory.pruned.clear()
    memory.findings.clear()


def _pruned(
    memory: Memory, lowering: Lowering, reader: TensorReader, settings: Any
) -> Sequence[Decision]:
    """How a tensor is pruned: as the last time where nothing that it follows from has changed."""
    name = reader.entry.name
    before, decisions = memory.pruned.get(name, (None, ()))
    if not _same(before, settings):
        try:
            decisions = lowering.prune(reader).decisions
        except NonFinite as error:
            raise reader.culprit(error) from None
        memory.pruned[name] = settings, decisions
    return decisions


def _write(
    place: torch.Tensor, reader: TensorReader, chunks: Iterable[MergedChunk], dtype: torch.dtype
) -> None:
    for chunk in chunks:
        if not chunk.finite:
            raise reader.culprit(overflow(reader.entry.name))
        if not len(chunk.values):
            continue
        values = torch.frombuffer(chunk.values, dtype=dtype)
        place[chunk.start : chunk.start + values.numel()].copy_(values)


def _settings(recipe: Recipe, lowering: Lowering, entry: Entry) -> tuple[Any, Any]:
    """All that a tensor's values follow from besides the family: how it is pruned, and the rest."""
    knobs = {knob.name for knob in PRUNERS[recipe.prune].knobs}
    values = [recipe.parameters, *(source.values for source in recipe.sources)]
    own = [
        {
            name: value_at(value, entry) if isinstance(value, Schedule) else value
            for name, value in one.items()
        }
        for one in values
    ]
    pruning = [{name: value for name, value in one.items() if name in knobs} for one in own]
    models = [source.model for source in recipe.sources]
    return (
        (recipe.prune, models, pruning, lowering.pruning.values),
        (recipe.consensus, recipe.dtype, own, lowering.evidence.values),
    )


def _same(first: Any, second: Any) -> bool:
    """True where two findings are surely equal."""
    try:
        return bool(first == second)
    except (ValueError, RuntimeError):  # arrays of several values are neither
        return False
