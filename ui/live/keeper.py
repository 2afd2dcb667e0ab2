"""Keep: what answers becomes a model on offer."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from merging import recipe as recipes
from merging.errors import Cancelled, MergeError
from merging.system import shortage
from ui import remarks
from ui.events import PROMPT
from ui.findings import THIN
from ui.library import Library
from ui.live.columns import Column
from ui.live.layout import LiveRefs
from ui.live.pages import LivePages
from ui.live.work import Work
from ui.merge.texts import suggest_name
from ui.naming import RENAME_JS
from ui.units import span

if TYPE_CHECKING:
    from merging.live.keeping import Kept
    from merging.live.model import LiveModel

log = logging.getLogger(__name__)

_SHOWN = 12  # digits of a fingerprint
_EARLIER = "The settings have changed since; this is what answered."


@dataclass
class Keeping:
    """What a page keeps, or has kept.

    Attributes:
        name: of the model.
        live, version: what was kept of it: as long as both are the same, what answers is saved.
        stop: ends the keeping.
    """

    name: str
    live: LiveModel
    version: int
    is_over: bool = False
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Keeper:
    """The handlers of Keep, over the library and the pages' live models.

    Attributes:
        heard: what a page's live model said as it is now.
    """

    library: Library
    pages: LivePages
    heard: Callable[[str], Column]
    current: dict[str, Keeping] = field(default_factory=dict)

    def wire(self, refs: LiveRefs, recipe: Any) -> Any:
        """Attaches the events.

        Args:
            recipe: the YAML text that the controls spell.

        Returns:
            The event after which another model is kept.
        """
        outputs = [
            refs.kept,
            refs.stop_keeping,
            refs.to_chat,
            refs.finished,
            refs.name,
            refs.suggested,
        ]
        stream = {**PROMPT, "queue": True, "trigger_mode": "once"}
        pressed = [refs.keep.click, refs.keep_beside.click, refs.name.submit]
        names = [refs.fresh, refs.name, refs.suggested]
        refs.fresh.change(None, names, names[1:], js=RENAME_JS, api_visibility="private")
        refs.stop_keeping.click(self.stopped, None, None, **PROMPT)
        return gr.on(pressed, self.kept, [refs.name, recipe], outputs, **stream)

    def kept(self, name: str, recipe: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Writes what answers to a new model. Yields how it goes, whether it can be stopped, the
        way to Chat, the model, and names for the next one."""
        page = str(request.session_hash)
        hidden, nothing = gr.update(visible=False), [gr.skip()] * 3
        try:
            model, folder = self._begun(page, name)
            keeping = self.current[page]
        except MergeError as error:
            yield escape(str(error)), hidden, gr.skip(), *nothing
            return
        work, stoppable = Work("keep"), gr.update(visible=True)
        try:
            column = self.heard(page)
            keep = partial(_kept, model, folder, column, work, keeping.stop)
            for share in work.run(keep):
                said = f"Keeping {folder.name}: {share:.0%}".replace("%", f"{THIN}%")
                yield escape(said), stoppable, hidden, *nothing
        except Exception as error:
            self.current.pop(page, None)
            yield escape(_reason(error)), hidden, hidden, *nothing
            return
        keeping.is_over = True
        if self.pages.of(page) is not model:  # switched off meanwhile
            del self.current[page]
        self.library.refresh()
        kept: Kept = work.result
        sources = tuple(dict.fromkeys([kept.recipe.base, *(s.model for s in kept.recipe.sources)]))
        finished = self.library.id_of(kept.out), sources
        free = self.library.free_name(folder.name)
        said = _in_words(kept, is_current=self._is_current(kept, recipe))
        yield said, hidden, gr.update(visible=True), finished, free, free

    def stopped(self, request: gr.Request) -> None:
        """Ends the page's keeping."""
        keeping = self.current.get(str(request.session_hash))
        if keeping is not None and not keeping.is_over:
            keeping.stop.set()

    def under_way(self, page: str) -> str:
        """The name of what a page is keeping at the moment; "" for nothing."""
        keeping = self.current.get(page)
        return keeping.name if keeping and not keeping.is_over else ""

    def saved(self, page: str) -> str:
        """Whether what answers on a page is saved."""
        keeping, live = self.current.get(page), self.pages.of(page)
        if keeping is None or keeping.live is not live or keeping.version != live.version:
            return "not saved"
        return f"kept as {keeping.name}" if keeping.is_over else f"keeping {keeping.name}"

    def fresh(self, recipe: str) -> str:
        """A free name for what a recipe makes; "" where there is none."""
        return suggest_name(self.library, recipe)

    def forget(self, page: str) -> None:
        """The page has no live model any more; what is being written is written."""
        keeping = self.current.get(page)
        if keeping is not None and keeping.is_over:
            del self.current[page]

    def _begun(self, page: str, name: str) -> tuple[LiveModel, Any]:
        live = self.pages.of(page)
        if live is None or live.settled is None:
            raise Cancelled("Nothing is merged in memory yet; wait a moment, then press Keep.")
        if self.under_way(page):
            raise Cancelled(f"{self.under_way(page)} is being kept; wait until it is.")
        folder = self.library.new_folder(name)
        self.current[page] = Keeping(folder.name, live, live.version)
        return live, folder

    def _is_current(self, kept: Kept, recipe: str) -> bool:
        """True where the controls still spell what was kept."""
        try:
            return self.library.resolved(recipes.parse(recipe)) == kept.recipe
        except MergeError:
            return False


def _kept(
    model: LiveModel, folder: Path, column: Column, work: Work, stop: threading.Event
) -> Kept:
    """Writes the model, and notes beside it what is known of it."""
    kept = model.keep(folder, progress=work.report, cancel=stop)
    remarks.note_live(kept, column.scores_by_name())
    return kept


def _in_words(kept: Kept, *, is_current: bool) -> str:
    kind, _, digits = kept.fingerprint.partition(":")
    parts = [
        f"Kept as <b>{escape(kept.out.name)}</b> in {span(kept.seconds)} "
        f'(<span title="{kept.fingerprint}">fingerprint {kind}:{digits[:_SHOWN]}…</span>).'
    ]
    if kept.is_merged_again:
        parts.append("Its file has types that memory does not hold, so it was merged once more.")
    if not is_current:
        parts.append(_EARLIER)
    return " ".join(parts)


def _reason(error: Exception) -> str:
    """Why nothing was kept."""
    if isinstance(error, Cancelled):
        return "Stopped; nothing was written."
    if isinstance(error, MergeError):
        return str(error)
    reason = shortage.in_words(error)
    if reason is not None:
        return str(reason)
    mark = secrets.token_hex(4)
    log.error("keeping failed (%s)", mark, exc_info=error)
    return f"Something went wrong on our side (log id {mark})."
