"""What the Chat tab answers: to a choice of models, to a question, to a page that comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from merging.errors import MergeError, ModelNotFound
from ui.chat import view
from ui.chat.answers import Answer, written
from ui.chat.layout import ChatRefs
from ui.chat.questions import BOUNDS, MOST_CHARACTERS, read, run_of, within
from ui.chat.speakers import LIVE, Live, Offered, Speaker
from ui.chat.stops import Stops
from ui.chat.votes import counted
from ui.library import Library
from ui.live.pages import LivePages
from ui.store import ModelStore


@dataclass(frozen=True)
class ChatTab:
    """The tab's handlers, over the library, the loaded models and the pages' live merges."""

    refs: ChatRefs
    library: Library
    store: ModelStore
    pages: LivePages
    stops: Stops = field(default_factory=Stops)

    def beside(self, model_id: str, sources: Sequence[str]) -> Any:
        """The choice that shows a new model beside its base and its first experts."""
        columns = self._offered([*sources[: view.COLUMNS - 1], model_id])
        return gr.update(choices=self._choices(), value=columns)

    def prepared(self) -> None:
        """What models need is imported once the first page stands, not before it."""
        self.store.warm([])

    def opened(self, chosen: list[str], request: gr.Request) -> Any:
        """The models on offer now; those chosen are loaded while the visitor reads."""
        self.library.refresh()
        page = str(request.session_hash)
        present, choices = self._offered(chosen, page), self._choices(page)
        self.store.warm([self.library.get(model_id) for model_id in present if model_id != LIVE])
        if present == chosen:  # the value stays the visitor's, who may be clicking meanwhile
            return gr.update(choices=choices)
        return gr.update(choices=choices, value=present)

    def chose(self, chosen: list[str], request: gr.Request) -> list[Any]:
        """Shows one column per chosen model, four at most."""
        present = self._offered(chosen, str(request.session_hash))
        columns = present[: view.COLUMNS]
        group = gr.skip()
        if columns != chosen:
            group = gr.update(value=columns)  # which asks again, and finds nothing to complain of
            if len(present) > view.COLUMNS:
                gr.Info(f"Up to {view.COLUMNS} models answer side by side: take one away first.")
        board = view.board(self.library, columns)
        return [group, board, board]

    def restored(self, stored: Any) -> list[Any]:
        """The choice, the columns and the settings that a browser kept, as far as they hold."""
        kept = stored if isinstance(stored, Mapping) else {}
        return [*self._restored_choice(kept.get("chosen")), *_restored_settings(kept)]

    def answered(self, event: gr.EventData, request: gr.Request) -> Iterator[Any]:
        """Writes one answer into a channel."""
        page = str(request.session_hash)
        run = ""
        try:
            run = run_of(event._data)
            question = read(event._data)
            speaker = self._speaker(question.model, page)
        except MergeError as error:
            answer = Answer(run)
            answer.fail(str(error))
            yield answer.drawn()
            return
        stop = self.stops.of(page, run)
        try:
            yield from written(speaker, question, stop)
        finally:
            stop.set()  # also where the page left: nobody reads it
            self.stops.over(page, run)

    def stopped(self, event: gr.EventData, request: gr.Request) -> None:
        """Stops an answer that is being written, or waits for its turn."""
        try:
            self.stops.of(str(request.session_hash), run_of(event._data)).set()
        except MergeError:
            return

    def counted(self, event: gr.EventData) -> dict[str, Any]:
        """The tally of the votes that the page holds."""
        return counted(event._data)

    def leave(self, request: gr.Request) -> None:
        """The visitor closed the page: answers stop."""
        self.stops.leave(str(request.session_hash))

    def _speaker(self, model_id: str, page: str) -> Speaker:
        """Who answers under this id. Raises ModelNotFound."""
        if model_id != LIVE:
            return Offered(self.store, self.library.get(model_id))
        live = self.pages.of(page)
        if live is None:
            raise ModelNotFound("this page has no live merge now; switch Live on in Explore")
        return Live(live)

    def _choices(self, page: str = "") -> list[str | tuple[str, str]]:
        return [*([LIVE] if self.pages.of(page) else []), *view.choices(self.library)]

    def _offered(self, names: Sequence[str], page: str = "") -> list[str]:
        live = [LIVE] if self.pages.of(page) else []
        on_offer = {*live, *(model.id for model in self.library.models())}
        return [name for name in dict.fromkeys(names) if name in on_offer]

    def _restored_choice(self, names: Any) -> list[Any]:
        if not isinstance(names, list):
            return [gr.skip()] * 3
        columns = self._offered([name for name in names if isinstance(name, str)])[: view.COLUMNS]
        if not columns:
            return [gr.skip()] * 3
        board = view.board(self.library, columns)
        # those that were made since the app started are no choices of a new page yet
        return [gr.update(choices=self._choices(), value=columns), board, board]


def _restored_settings(kept: Mapping[str, Any]) -> list[Any]:
    settings = kept.get("settings")
    if not isinstance(settings, Mapping):
        return [gr.skip()] * (len(BOUNDS) + 2)
    values = {name: within(name, settings.get(name)) for name in BOUNDS}
    system = settings.get("system")
    system = system[:MOST_CHARACTERS] if isinstance(system, str) else ""
    return [*values.values(), system, gr.update(label=view.how(values["temperature"]))]
