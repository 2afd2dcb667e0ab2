"""A recipe as a frozen value, every default filled in."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.checkpoints import Entry
from merging.declarations.blueprints import Blueprint
from merging.declarations.schedules import Schedule, constant

_ONE = constant(1.0)


@dataclass(frozen=True)
class Source:
    """One model of a recipe and its own values.

    Attributes:
        model: folder, Hub id or demo:NAME, as written.
        values: its value of every knob that is per model: a Schedule, or a tuple of factors.
        gives_tokenizer: the result gets its tokenizer, chat templates and generation settings
            instead of the base's.
    """

    model: str
    values: Mapping[str, Any]
    gives_tokenizer: bool = False

    def at(self, knob: str, entry: Entry) -> Any:
        """A knob's value for one tensor."""
        return value_at(self.values.get(knob, _ONE), entry)

    @property
    def weight(self) -> Schedule:
        """1 where the method has no weights."""
        return self.values.get("weight", _ONE)

    @property
    def density(self) -> Schedule:
        """1 where nothing is pruned."""
        return self.values.get("density", _ONE)

    @property
    def amplification(self) -> tuple[float, ...]:
        """K factors, most important partition first; one of 1 where there are no partitions."""
        return self.values.get("amplification", (1.0,))


@dataclass(frozen=True)
class Recipe:
    """What to merge and how, every default filled in.

    Attributes:
        method: the merge method's name (a preset).
        base: the base's reference; where none is needed and none is named, the first model's.
        prune: the pruner's id.
        consensus: the id of the rule that combines: a consensus, or a blend of whole models.
        parameters: every other knob of the two by name; a Schedule where it is scheduled.
        dtype: type of the output ("bfloat16"), None for the base's own types.
        folder: folder that relative paths are read against.
        chat_template: "auto" for the one that most models have, a name or a text; None for that
            of the tokenizer.
        keep_base: parts of names; tensors that have one stay as the base has them.
        layers: how many layers the models must have, where the recipe names them in slices.
        blueprint: where the layers come from, where they are stacked anew; base and sources are
            then called by its titles.
        stages: recipes whose results this one names, and theirs, by the names that they have: in
            the order in which they are merged. There may be others of its file, on which its result
            does not depend (`merging.recipe.stages.needed`).
        notes: remarks for the user that are not errors.
        origin: True where changes are counted from the base; False where it is one model of many,
            or only lends its configuration.
        lines: of its text, from 1: where it names every model, by reference, and every key first;
            empty of a recipe that was no text.
    """

    method: str
    base: str
    sources: tuple[Source, ...]
    prune: str
    consensus: str
    parameters: Mapping[str, Any]
    dtype: str | None = None
    folder: Path | None = None
    chat_template: str | None = None
    keep_base: tuple[str, ...] = ()
    layers: int | None = field(default=None, compare=False)
    blueprint: Blueprint | None = None
    stages: tuple[tuple[str, Recipe], ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    origin: bool = field(default=True, compare=False)
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def strength(self) -> Schedule:
        """lambda; 1 where the method has none."""
        return self.parameters.get("lambda", _ONE)

    @property
    def tokenizer(self) -> str | None:
        """The model whose tokenizer the result gets; None for the base's."""
        if self.blueprint is not None:
            return self.blueprint.tokenizer
        return next((s.model for s in self.sources if s.gives_tokenizer), None)

    @property
    def partitions(self) -> int:
        """K, the number of partitions of the kept changes."""
        return max(len(source.amplification) for source in self.sources)

    @property
    def schedules(self) -> list[Schedule]:
        """Everything that may change along the model."""
        everything = [
            *self.parameters.values(),
            *(v for s in self.sources for v in s.values.values()),
        ]
        return [value for value in everything if isinstance(value, Schedule)]

    def at(self, knob: str, entry: Entry) -> Any:
        """A scheduled knob's value for one tensor, of the knob's kind."""
        return value_at(self.parameters[knob], entry)

    def values_of(self, knob: str) -> tuple[Any, ...]:
        """Every value that a scheduled knob of all models has somewhere; none where the methods
        have no such knob."""
        return self.parameters[knob].values if knob in self.parameters else ()

    def weights_at(self, entry: Entry) -> tuple[float, ...]:
        """The models' weights for one tensor."""
        return self.of_all("weight", entry)

    def of_all(self, knob: str, entry: Entry) -> tuple[float, ...]:
        """Every model's own value of a scheduled knob for one tensor: where they vary nowhere, one
        tuple for all tensors."""
        if (constant := self._constants.get(knob)) is not None:
            return constant
        return tuple(source.at(knob, entry) for source in self.sources)

    @functools.cached_property
    def _constants(self) -> dict[str, tuple[float, ...]]:
        """The values of the knobs of models that are the same for all tensors."""
        knobs = {"weight", *(knob for source in self.sources for knob in source.values)}
        rows = {knob: [source.values.get(knob, _ONE) for source in self.sources] for knob in knobs}
        constants = {
            knob: tuple(one.constant if isinstance(one, Schedule) else None for one in row)
            for knob, row in rows.items()
        }
        return {knob: row for knob, row in constants.items() if None not in row}  # type: ignore[misc]


def value_at(schedule: Schedule, entry: Entry) -> Any:
    """A schedule's value for one tensor, by the depth of the stack that it is in."""
    if schedule.constant is not None:
        return schedule.constant
    return schedule.at(entry.name, entry.place.layer, entry.place.depth)
