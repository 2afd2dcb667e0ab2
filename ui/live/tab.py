"""The live card's handlers: a recipe that came to rest is merged in memory and asked."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from merging import recipe as recipes
from merging.engines.eager import Progress
from merging.errors import Cancelled, MergeError
from merging.recipe import Recipe
from merging.trial.turns import Sampling
from ui.events import PROMPT
from ui.explore.readings import Reading, Readings
from ui.figures import short
from ui.library import Library, stamp
from ui.live import board, probes
from ui.live.board import Column
from ui.live.layout import LiveRefs
from ui.live.pages import LivePages
from ui.live.probes import Probe
from ui.store import ModelStore

if TYPE_CHECKING:
    from merging.live.model import LiveModel
    from merging.trial.chat import ChatModel

log = logging.getLogger(__name__)

_LOOK_S = 0.1  # between two looks at how far a merge is
_TOKENS = 32  # of an answer
_KEPT = 64  # columns of models that do not change, and answers of each
_STREAM: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
    "trigger_mode": "multiple",  # a newer recipe ends the work on an older one, see Readings
}


@dataclass
class Merging:
    """A merge into a live model, on a thread of its own."""

    share: float = 0.0
    rewritten: int = 0
    seconds: float = 0.0
    error: BaseException | None = None

    def report(self, progress: Progress) -> None:
        """Called by the merge."""
        self.share = progress.done / max(progress.total, 1)

    @property
    def words(self) -> str:
        """What it did."""
        if not self.rewritten:
            return "The merge in memory is that of these settings already."
        return f"{self.rewritten} tensors rewritten in {self.seconds * 1e3:.0f} ms."


class Said(NamedTuple):
    """What a page's live model said, as long as it is that version of that model."""

    model: LiveModel
    version: int
    column: Column


@dataclass(frozen=True)
class LiveTab:
    """The card's handlers, over the library, the pages' live models and the loaded sources.

    Attributes:
        per_skill: validation prompts that a skill is scored on.
    """

    refs: LiveRefs
    library: Library
    pages: LivePages
    store: ModelStore
    per_skill: int = probes.PER_SKILL
    turns: Readings = field(default_factory=Readings)
    sources: dict[tuple, Column] = field(default_factory=dict)
    said: dict[str, Said] = field(default_factory=dict)

    def wire(self, demo: gr.Blocks, recipe: gr.State, respelled: Sequence[Any]) -> None:
        """Attaches the card's events.

        Args:
            recipe: the YAML text that the controls spell.
            respelled: events after which it is another one.
        """
        refs = self.refs
        inputs, outputs = [refs.on, refs.prompts, recipe], [refs.board]
        shown = [refs.prompts, refs.board]
        refs.on.change(lambda on: [gr.update(visible=on)] * 2, refs.on, shown, **PROMPT)
        refs.on.change(self.switched, refs.on, None, **PROMPT)
        gr.on([refs.on.change, refs.prompts.blur], self.changed, inputs, outputs, **_STREAM)
        for event in respelled:
            event.then(self.changed, inputs, outputs, **_STREAM)
        demo.unload(self.leave)

    def switched(self, on: bool, request: gr.Request) -> None:
        """Switched off, nothing works on and the memory is free."""
        if not on:
            self.leave(request)

    def changed(self, on: bool, text: str, recipe: str, request: gr.Request) -> Iterator[Any]:
        """Merges what the controls spell in memory, asks it, and shows what it says."""
        page = str(request.session_hash)
        if not on:
            yield gr.skip()
            return
        if (recipe or "#").startswith("#"):  # the controls spell none, and it says why
            yield board.drawn((recipe or "").lstrip("# ").strip(), [], [], [])
            return
        turn = self.turns.begin(page)
        try:
            for shown in self._answered(page, probes.read(text), recipe, turn):
                if turn.replaced:
                    return
                yield shown
        except Cancelled:
            yield gr.skip()
        except MergeError as error:
            yield board.drawn(str(error), [], [], [])
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("the live model failed (%s)", mark)
            yield board.drawn(f"Something went wrong on our side (log id {mark}).", [], [], [])
        finally:
            self.turns.end(page, turn)

    def leave(self, request: gr.Request) -> None:
        """The visitor closed the page."""
        page = str(request.session_hash)
        self.turns.stop(page)
        self.pages.leave(page)
        self.said.pop(page, None)

    def _answered(
        self, page: str, asked: Sequence[Probe], text: str, turn: Reading
    ) -> Iterator[str]:
        recipe = recipes.parse(text)
        names = list(dict.fromkeys([recipe.base, *(one.model for one in recipe.sources)]))
        recipe = self.library.resolved(recipe)  # models on offer, and no others
        skills = probes.skills(names)
        sources = [self._column(name) for name in names]
        if not self.pages.holds(page, recipe):
            self.store.check_room(self.library.get(names[0]))
            yield board.drawn("Loading the base…", [], [], [])
        model = self.pages.get(page, recipe)
        work = Merging()
        for share in _merged(model, recipe, work, turn.over):
            yield board.drawn(
                f"Merging in memory: {share:.0%}", asked, skills, [Column("Live"), *sources]
            )
        status = work.words
        with model.held(turn.over) as (chat, stop):
            live = self._live(page, model)
            columns = [live, *sources]
            for _ in self._filled(live, chat, asked, skills, stop):
                yield board.drawn(status, asked, skills, columns)
        for name, column in zip(names, sources, strict=True):
            for _ in self._source(name, column, asked, skills, turn.over):
                yield board.drawn(status, asked, skills, columns)

    def _live(self, page: str, model: LiveModel) -> Column:
        """What the live model has said as it is now, while it is held."""
        said = self.said.get(page)
        if said is None or said.model is not model or said.version != model.version:
            said = self.said[page] = Said(model, model.version, Column("Live"))
        return said.column

    def _column(self, name: str) -> Column:
        """What a source said before; it does not change, so it is asked once."""
        key = (name, stamp(self.library.get(name).folder))
        if key not in self.sources:
            while len(self.sources) >= _KEPT:
                del self.sources[next(iter(self.sources))]
            self.sources[key] = Column(short(self.library.get(name).label))
        column = self.sources[key]
        if len(column.answers) > _KEPT:
            column.answers.clear()
        return column

    def _source(
        self,
        name: str,
        column: Column,
        asked: Sequence[Probe],
        skills: Sequence[str],
        stop: threading.Event,
    ) -> Iterator[None]:
        known = all(probe.prompt in column.answers for probe in asked)
        if known and all(skill in column.scores for skill in skills):
            return
        try:
            self.store.check_room(self.library.get(name))
            chat = self.store.get(self.library.get(name), stop)
        except Cancelled:
            raise
        except MergeError as error:
            column.problem = str(error)
            yield
            return
        column.problem = ""
        yield from self._filled(column, chat, asked, skills, stop)

    def _filled(
        self,
        column: Column,
        chat: ChatModel,
        asked: Sequence[Probe],
        skills: Sequence[str],
        stop: threading.Event,
    ) -> Iterator[None]:
        """Asks a model what it was not asked yet; yields after the answers and after every skill.

        Raises Cancelled where `stop` was set.
        """
        from merging.trial.evaluate import choose_tasks, scored

        for probe in asked:
            if probe.prompt not in column.answers:
                message = [{"role": "user", "content": probe.prompt}]
                last = list(chat.stream(message, Sampling(_TOKENS), stop=stop))[-1]
                if stop.is_set():
                    raise Cancelled("stopped")
                column.answers[probe.prompt] = last.text
        yield
        for skill in skills:
            if skill not in column.scores:
                tasks = choose_tasks([skill], self.per_skill, "validation", None)
                source = {column.name: chat.model}
                ((_, _, column.scores[skill]),) = scored(source, tasks, cancel=stop)
                yield


def _merged(
    model: LiveModel, recipe: Recipe, work: Merging, stop: threading.Event
) -> Iterator[float]:
    """Merges on a thread of its own; yields how much is done where that takes long."""

    def run() -> None:
        try:
            settled = model.settle(recipe, progress=work.report, cancel=stop)
            work.rewritten, work.seconds = len(settled.rewritten), settled.seconds
        except BaseException as error:  # who waits is told
            work.error = error

    thread = threading.Thread(target=run, name="live", daemon=True)
    thread.start()
    thread.join(2 * _LOOK_S)
    while thread.is_alive():
        yield work.share
        thread.join(_LOOK_S)
    if work.error is not None:
        raise work.error
