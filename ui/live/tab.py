"""The live card's handlers: a recipe that came to rest is merged in memory and asked."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from merging import recipe as recipes
from merging.checkpoints.fingerprint import FULL_BYTES
from merging.errors import Cancelled, MergeError
from merging.recipe import Recipe
from ui.events import CHEAP, PROMPT
from ui.explore.readings import Reading, Readings
from ui.findings import THIN
from ui.library import Library
from ui.live import meters, pinning, probes, replies, skills
from ui.live.columns import Beside, Column, Score
from ui.live.hearing import Hearing
from ui.live.keeper import Keeper
from ui.live.layout import LiveRefs
from ui.live.pages import LivePages
from ui.live.scene import Scene
from ui.live.skills import Skill
from ui.live.work import Work
from ui.store import ModelStore

if TYPE_CHECKING:
    from merging.live.model import LiveModel, Settled

log = logging.getLogger(__name__)

_OUTPUTS = 6  # of `LiveTab.changed`
_STREAM: dict[str, Any] = {
    **CHEAP,
    "trigger_mode": "multiple",  # a newer recipe ends the work on an older one, see Readings
}


@dataclass(frozen=True)
class LiveTab:
    """The card's handlers, over the library, the pages' live models and the loaded sources.

    Attributes:
        per_skill: prompts that a skill is scored on, at most.
        sides: what two settings spell that a page holds side by side, by name, see
            `ui.explore.beside`; {} where there is one alone.
    """

    refs: LiveRefs
    library: Library
    pages: LivePages
    store: ModelStore
    per_skill: int = skills.PER_SKILL
    sides: Callable[[Any], Mapping[str, Recipe]] = lambda _: {}
    turns: Readings = field(default_factory=Readings)
    scenes: dict[str, Scene] = field(default_factory=dict)
    merged: dict[str, tuple[LiveModel, str]] = field(default_factory=dict)

    @cached_property
    def keeper(self) -> Keeper:
        """Who keeps what answers."""
        return Keeper(self.library, self.pages, self.column)

    @cached_property
    def hearing(self) -> Hearing:
        """Who asks the models."""
        return Hearing(self.library, self.store, self.per_skill)

    def wire(
        self,
        demo: gr.Blocks,
        recipe: Any,
        respelled: Sequence[Any],
        remembered: gr.BrowserState,
        held: gr.State,
    ) -> None:
        """Attaches the card's events.

        Args:
            recipe: the YAML text that the controls spell.
            respelled: events after which it is another one.
            remembered: the pinned prompts that the browser keeps, see `pinning`.
            held: what `sides` takes.
        """
        refs = self.refs
        asked = [refs.prompts, refs.family, remembered, refs.asked, refs.own]
        inputs = [refs.on, *asked, recipe, held]
        boards = [refs.meters, refs.replies, refs.let_go]
        outputs = [*boards, refs.prompts, refs.family, refs.fresh]
        shown = [refs.body, refs.keep_beside]
        refs.on.change(lambda on: [gr.update(visible=on)] * 2, refs.on, shown, **PROMPT)
        refs.on.change(self.switched, refs.on, None, **PROMPT)
        refs.on.change(self.changed, inputs, outputs, **_STREAM)
        alone = refs.let_go.click(self.let_go_of_others, None, None, **PROMPT)
        for event in [*respelled, *self._asked(remembered), *self._own_tasks(), alone]:
            event.then(self.changed, inputs, outputs, **_STREAM)
        self.keeper.wire(refs, recipe).then(self.noted, None, refs.meters, **PROMPT)
        demo.unload(self.leave)

    def _asked(self, remembered: gr.BrowserState) -> list[Any]:
        """Events after which other things are asked."""
        refs = self.refs
        pinned = [refs.prompts, refs.family, remembered]
        moved = [refs.prompts, refs.asked, remembered]
        return [
            refs.prompts.blur(pinning.edited, pinned, remembered, **PROMPT),
            refs.ask.submit(pinning.asked, refs.ask, [refs.ask, refs.asked], **PROMPT),
            refs.replies.pin(pinning.pin, [*pinned, refs.asked], moved, **PROMPT),
            refs.replies.unpin(pinning.unpin, pinned, moved, **PROMPT),
        ]

    def _own_tasks(self) -> list[Any]:
        """Events after which other skills are scored."""
        refs = self.refs
        own = [refs.own, refs.own_said, refs.own_gone]
        return [
            refs.own_file.upload(self.tasks_opened, [refs.own_file, refs.own], own, **PROMPT),
            refs.own_gone.click(lambda: ((), "", gr.update(visible=False)), None, own, **PROMPT),
        ]

    def column(self, page: str) -> Column:
        """What a page's live model has said as it is now."""
        return self.hearing.now(page, self.pages.of(page))

    def heard(self, page: str, recipe: str) -> dict[str, Score]:
        """The scores of a page's live model, where it answers by this recipe."""
        live = self.pages.of(page)
        try:
            is_this = live is not None and live.settled == self.library.resolved(
                recipes.parse(recipe)
            )
        except MergeError:
            return {}
        return self.column(page).scores_by_name() if is_this else {}

    def switched(self, on: bool, request: gr.Request) -> None:
        """Switched off, nothing works on and the memory is free."""
        if not on:
            self.leave(request)

    def leave(self, request: gr.Request) -> None:
        """The visitor closed the page."""
        page = str(request.session_hash)
        self.turns.stop(page)
        self.pages.leave(page)
        self.hearing.forget(page)
        self.keeper.forget(page)
        self.scenes.pop(page, None)
        self.merged.pop(page, None)

    def let_go_of_others(self, request: gr.Request) -> None:
        """Frees the memory of all other loaded models."""
        self.pages.let_go_of_others(str(request.session_hash))

    def noted(self, request: gr.Request) -> Any:
        """The status line, once something was kept."""
        page = str(request.session_hash)
        scene = self.scenes.get(page)
        if scene is None or not scene.saved:
            return gr.skip()
        scene.saved = self.keeper.saved(page)
        return meters.drawn(scene)

    def tasks_opened(self, path: str | None, own: tuple[Skill, ...]) -> tuple[Any, str, Any]:
        """The skills of a task file; those of the one before where something is wrong with it."""
        if not path:
            return gr.skip(), "", gr.skip()
        name = Path(path).name
        try:
            opened = skills.of_file(Path(path), name)
        except MergeError as error:
            return gr.skip(), escape(str(error)), gr.update(visible=bool(own))
        count = sum(len(skill.tasks) for skill in opened)
        said = f"{name}: {count} prompt{'s' * (count > 1)} of {len(opened)}" + (
            f" skill{'s' * (len(opened) > 1)}."
        )
        return opened, escape(said), gr.update(visible=True)

    def changed(
        self,
        on: bool,
        text: str,
        family: str,
        remembered: Any,
        asked: str,
        own: tuple[Skill, ...],
        recipe: str,
        held: Any,
        request: gr.Request,
    ) -> Iterator[Any]:
        """Merges what the controls spell in memory, asks it, and shows what it says.

        Yields the values of meters, replies, the way to more memory, prompts, family and a name
        for the result.
        """
        page = str(request.session_hash)
        if not on:
            yield [gr.skip()] * _OUTPUTS
            return
        scene = self.scenes[page] = Scene(live=self.hearing.last(page), per_skill=self.per_skill)
        if (recipe or "#").startswith("#"):  # the controls spell none, and it says why
            yield _complaint(scene, (recipe or "").lstrip("# ").strip())
            return
        turn = self.turns.begin(page)
        try:
            spelled = recipes.parse(recipe)
            names = list(dict.fromkeys([spelled.base, *(s.model for s in spelled.sources)]))
            moved: list[Any] = [gr.skip()] * 3  # what is typed meanwhile stays
            is_named = False
            if family != spelled.base:
                text = pinning.of_base(remembered, names)
                moved = [text, spelled.base, gr.skip()]
            scene.probes = probes.with_asked(text, asked)
            scene.skills = [*skills.built_in(names), *own]
            scene.beside = self._beside(page, spelled, held)
            for _ in self._heard(scene, page, spelled, names, turn):
                if turn.replaced:
                    return
                scene.saved = self.keeper.saved(page) if scene.is_settled else ""
                if scene.live.answers and scene.is_settled and not is_named:
                    moved[-1], is_named = self.keeper.fresh(recipe), True
                yield [*_drawn(scene), *moved]
                moved = [gr.skip()] * len(moved)
        except Cancelled:
            yield [gr.skip()] * _OUTPUTS
        except MergeError as error:
            yield _complaint(scene, error.reason)  # the text that its line is of is not here
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("the live model failed (%s)", mark)
            yield _complaint(scene, f"Something went wrong on our side (log id {mark}).")
        finally:
            self.turns.end(page, turn)

    def _heard(
        self, scene: Scene, page: str, spelled: Recipe, names: Sequence[str], turn: Reading
    ) -> Iterator[None]:
        """Merges and asks; yields whenever the scene has changed."""
        recipe = self.library.resolved(spelled)  # models on offer, and no others
        scene.sources = self.hearing.columns(names[0], names[1:])
        if not self.pages.holds(page, recipe):
            self.store.check_room(self.library.get(names[0]))
            scene.status = "Loading the base…"
            yield
            scene.has_no_room = self.pages.would_fit_alone(page, recipe)
        model = self.pages.get(page, recipe)
        scene.has_no_room = False
        scene.is_busy, work = model.settled != recipe, Work("live")
        settle = partial(model.settle, recipe, progress=work.report, cancel=turn.over)
        for share in work.run(settle):
            waits_for = self.keeper.under_way(page)
            merged = f"Merging in memory: {share:.0%}".replace("%", f"{THIN}%")
            scene.status = f"Waiting until {waits_for} is kept" if waits_for else merged
            yield
        scene.is_busy, scene.is_settled = False, True
        scene.status = self._words(page, model, work.result)
        with model.held(turn.over) as (chat, stop):
            scene.live = self.hearing.live(page, model)
            for _ in self.hearing.ask(scene.live, chat, scene.probes, scene.skills, stop):
                yield
        if model.chat.size_bytes <= FULL_BYTES:
            scene.fingerprint = model.fingerprint(turn.over) or ""
            yield
        for column in scene.sources:
            self.pages.touch(page)  # a source is let go of before it
            yield from self.hearing.ask_source(column, scene.probes, scene.skills, turn.over)

    def _beside(self, page: str, spelled: Recipe, held: Any) -> Beside | None:
        """The one of two settings that is not spelled, and what was heard of it."""
        both = self.sides(held)
        if len(set(map(recipes.dump, both.values()))) < 2:
            return None
        shown, other = both
        name = shown if both[other] == spelled else other  # the controls may be ahead of it
        try:
            return Beside(name, self.hearing.by(page, self.library.resolved(both[name])))
        except MergeError:  # its models are not on offer any more
            return Beside(name)

    def _words(self, page: str, model: LiveModel, settled: Settled) -> str:
        """What the last merge that changed anything did."""
        if settled.rewritten or self.merged.get(page, (None, ""))[0] is not model:
            self.merged[page] = model, _in_words(settled)
        return self.merged[page][1]


def _drawn(scene: Scene) -> list[Any]:
    return [meters.drawn(scene), replies.drawn(scene), gr.update(visible=scene.has_no_room)]


def _complaint(scene: Scene, text: str) -> list[Any]:
    """What the card shows where nothing is merged."""
    scene.status, scene.is_wrong, scene.sources = text, True, ()
    boards = _drawn(scene)
    return [*boards, *[gr.skip()] * (_OUTPUTS - len(boards))]


def _in_words(settled: Settled) -> str:
    """What a merge into the live model did."""
    count = len(settled.rewritten)
    if not count:
        return "In memory as these settings say"
    time = f"{settled.seconds * 1e3:.0f} ms" if settled.seconds < 1 else f"{settled.seconds:.1f} s"
    return f"Re-merged in {time} ({count} tensor{'s' * (count > 1)})"
