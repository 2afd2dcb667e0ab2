"""Models asked for the live card: what was said before holds, the rest is asked and scored."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from merging import recipe as recipes
from merging.errors import Cancelled, MergeError
from merging.recipe import Recipe
from merging.trial.turns import Sampling
from ui.figures import short
from ui.library import Library, stamp
from ui.live.columns import Column
from ui.live.probes import Probe
from ui.live.skills import Skill
from ui.looks import look
from ui.store import ModelStore

if TYPE_CHECKING:
    from merging.live.model import LiveModel
    from merging.trial.chat import ChatModel

TOKENS = 32  # of an answer
_EVERY_S = 0.05  # between two looks at an answer that grows
_LATEST = 12  # recipes of a page whose answers are remembered
_MOST = 64  # columns of models that do not change; answers and scores of each


class Said(NamedTuple):
    """What a page's live model said, as long as it is that version of that model."""

    model: LiveModel
    version: int
    column: Column


@dataclass(frozen=True)
class Hearing:
    """Asks models, and remembers what they said.

    Attributes:
        per_skill: prompts that a skill is scored on, at most.
        settings: by page, what its live model said by its latest recipes.
    """

    library: Library
    store: ModelStore
    per_skill: int
    sources: dict[tuple, Column] = field(default_factory=dict)
    settings: dict[str, OrderedDict[tuple, Column]] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)

    def last(self, page: str) -> Column:
        """What the page's live model said last."""
        said = self.said.get(page)
        return said.column if said else Column("live")

    def live(self, page: str, model: LiveModel) -> Column:
        """What the live model has said as it is now, while it is held. What it said by the same
        recipe before holds: its bytes are the same, and of likely tokens it takes the likeliest."""
        said = self.said.get(page)
        if said is None or said.version != model.version or said.model is not model:
            column = self.last(page).followed()
            if model.settled and (earlier := self.by(page, model.settled)):
                column.recall(earlier)
            said = self.said[page] = Said(model, model.version, column)
        if model.settled:
            self._keep(page, self._key(model.settled), said.column)
        return said.column

    def by(self, page: str, recipe: Recipe) -> Column | None:
        """What the page's live model said by a recipe; None where it was not asked, or that is long
        ago.

        Args:
            recipe: of models on offer, see `Library.resolved`.
        """
        latest, key = self.settings.get(page, OrderedDict()), self._key(recipe)
        if key in latest:
            latest.move_to_end(key)
        return latest.get(key)

    def _keep(self, page: str, key: tuple, column: Column) -> None:
        latest = self.settings.setdefault(page, OrderedDict())
        latest[key] = column
        latest.move_to_end(key)
        while len(latest) > _LATEST:
            latest.popitem(last=False)

    def _key(self, recipe: Recipe) -> tuple:
        """What tells the bytes of two merges apart: the recipe, and its models as they are now."""
        models = dict.fromkeys([recipe.base, *(source.model for source in recipe.sources)])
        stamps = [stamp(self.library.model_of(model).folder) for model in models]
        return recipes.dump(recipe), *stamps

    def now(self, page: str, model: LiveModel | None) -> Column:
        """What the live model has said as it is now; an empty column where that is nothing."""
        said = self.said.get(page)
        if said is None or said.model is not model or said.version != said.model.version:
            return Column("live")
        return said.column

    def forget(self, page: str) -> None:
        """The page needs no live model any more."""
        self.said.pop(page, None)
        self.settings.pop(page, None)

    def columns(self, base: str, experts: Sequence[str]) -> list[Column]:
        """What the sources said before; they do not change, so they are asked once."""
        columns = []
        for name in (base, *experts):
            own = look(name, self.library.seat(name))
            columns.append(replace(self._column(name), colour=own.colour, glyph=own.glyph))
        return columns

    def ask(
        self,
        column: Column,
        chat: ChatModel,
        probes: Sequence[Probe],
        skills: Sequence[Skill],
        stop: threading.Event,
    ) -> Iterator[None]:
        """Asks a model what it was not asked yet; yields as answers grow and after every skill.

        Raises Cancelled where `stop` was set.
        """
        from merging.trial.evaluate import scored

        for probe in probes:
            if probe.prompt not in column.answers:
                yield from self._answer(column, chat, probe, stop)
        yield
        for skill in skills:
            if skill not in column.scores:
                started = time.perf_counter()
                tasks = skill.prompts(self.per_skill)
                ((_, _, score),) = scored({column.name: chat.model}, tasks, cancel=stop)
                column.seconds[skill] = time.perf_counter() - started
                column.scores[skill] = score
                yield

    def ask_source(
        self,
        column: Column,
        probes: Sequence[Probe],
        skills: Sequence[Skill],
        stop: threading.Event,
    ) -> Iterator[None]:
        """As `ask`, of a model that is loaded where it has not said all yet."""
        is_asked = all(probe.prompt in column.answers for probe in probes)
        if is_asked and all(skill in column.scores for skill in skills):
            return
        model = self.library.get(column.model)
        try:
            self.store.check_room(model)
            chat = self.store.get(model, stop)
        except Cancelled:
            raise
        except MergeError as error:
            column.problem = str(error)
            yield
            return
        column.problem = ""
        yield from self.ask(column, chat, probes, skills, stop)

    def _answer(
        self, column: Column, chat: ChatModel, probe: Probe, stop: threading.Event
    ) -> Iterator[None]:
        """Asks one thing. The live model's answer is shown while it grows: its column is one
        page's, the others' are everybody's."""
        message = [{"role": "user", "content": probe.prompt}]
        text = ""
        try:
            for chunk in chat.stream(message, Sampling(TOKENS), stop=stop, every_s=_EVERY_S):
                text = chunk.text
                if not chunk.finish and not column.model:
                    column.growing, column.answers[probe.prompt] = probe.prompt, text
                    yield
            if stop.is_set():
                raise Cancelled("stopped")
            column.answers[probe.prompt], column.growing = text, None
        finally:
            if column.growing is not None:  # it was not finished
                column.answers.pop(column.growing, None)
                column.growing = None

    def _column(self, name: str) -> Column:
        key = (name, stamp(self.library.get(name).folder))
        if key not in self.sources:
            while len(self.sources) >= _MOST:
                del self.sources[next(iter(self.sources))]
            self.sources[key] = Column(short(self.library.get(name).label), name)
        column = self.sources[key]
        for values in (column.answers, column.scores):
            if len(values) > _MOST:
                values.clear()
        return column
