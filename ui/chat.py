"""The Chat tab: one question, up to four models, answers side by side as they are written.

Every column streams on its own and stops on its own. What models write is data: it reaches the
page as text (assets/chat.js), never as markup.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from merging.errors import Cancelled, MergeError
from merging.trial.turns import Sampling
from ui import chat_view as view
from ui.aside import aside
from ui.events import CHEAP, PRIVATE, PROMPT
from ui.library import RECORD, Library, Model
from ui.store import ModelStore
from ui.talks import Talk, Talks, Turn
from ui.units import amount

log = logging.getLogger(__name__)

_MAX_PROMPT = 8000  # characters
_EVERY_S = 0.1  # at most ten updates a second and column
_STREAMS = 4  # answers written at the same time, all visitors together


@dataclass(frozen=True)
class Asked:
    """One question to several models: what the columns are told to answer."""

    question: str = ""
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatRefs:
    """Components of the tab."""

    chosen: gr.CheckboxGroup
    boxes: tuple[gr.Column, ...]
    columns: tuple[gr.HTML, ...]
    prompt: gr.Textbox
    suggestions: tuple[gr.Button, ...]
    problem: gr.HTML
    clear: gr.Button
    differences: gr.Checkbox
    sampling: tuple[gr.Slider | gr.Number, ...]
    how: gr.Accordion
    asked: gr.State


def layout(library: Library) -> ChatRefs:
    """Builds the tab's components inside the open gr.Tab."""
    ids = [model.id for model in library.models()]
    chosen = first_models(library)
    models = gr.CheckboxGroup(
        ids,
        value=chosen,
        label="Models",
        interactive=True,
        elem_classes="chips",
        info=f"Up to {view.COLUMNS} answer side by side.",
        elem_id="chat-models",
    )
    boxes, columns = [], []
    with gr.Row(elem_classes="columns"):
        for number in range(view.COLUMNS):
            shown = number < len(chosen)
            with gr.Column(visible=shown, min_width=240) as box:
                value = view.drawn(library, chosen[number], Talk()) if shown else view.EMPTY
                columns.append(view.chat_column(number, value))
            boxes.append(box)
    problem = gr.HTML(
        html_template='<div role="alert">${value}</div>', value="", elem_id="chat-problem"
    )
    prompt = gr.Textbox(
        show_label=False,
        label="Question",
        placeholder="Ask all of them the same thing…",
        lines=1,
        max_lines=6,
        submit_btn="Send",
        interactive=True,
        elem_id="chat-prompt",
        autofocus=False,
    )
    suggestions = view.suggestions()
    with gr.Row(elem_classes="chat-options"):
        differences = gr.Checkbox(False, label="Show differences from the first", interactive=True)
        clear = gr.Button("Clear the conversation", size="sm")
    how, sampling = view.sampling()
    return ChatRefs(
        models,
        tuple(boxes),
        tuple(columns),
        prompt,
        suggestions,
        problem,
        clear,
        differences,
        sampling,
        how,
        gr.State(Asked()),
    )


def first_models(library: Library) -> list[str]:
    """The models that answer at first: the base, an expert, and the latest merge or one more."""
    base, experts = library.default_selection()
    shape = library.get(base).shape if base else ()
    merged = [m for m in library.models() if m.kind == "merged" and m.shape == shape]
    merged.sort(key=lambda model: (model.folder / RECORD).stat().st_mtime)
    latest = [model.id for model in merged[-1:]]
    return [name for name in [base, *experts[:1], *(latest or experts[1:2])] if name]


@dataclass(frozen=True)
class ChatTab:
    """The tab's handlers, over the library, the loaded models and the conversations."""

    refs: ChatRefs
    library: Library
    store: ModelStore
    talks: Talks

    def wire(self, demo: gr.Blocks, tab: gr.Tab) -> None:
        """Attaches the tab's events."""
        refs = self.refs
        columns = [*refs.boxes, *refs.columns]
        refs.chosen.change(self.chose, refs.chosen, [refs.chosen, refs.problem, *columns], **CHEAP)
        tab.select(self.opened, refs.chosen, refs.chosen, **PROMPT)
        demo.load(self.prepared, **CHEAP)
        asked = [refs.asked, refs.prompt, refs.problem, *refs.columns]
        often = {**CHEAP, "trigger_mode": "multiple"}  # a question must never be dropped
        # one after the other, or a quick second question could stand before the first
        asks = {**often, "concurrency_limit": 1, "concurrency_id": "questions"}
        take = "(question, ...rest) => [amalgamChat.take(question), ...rest]"
        events = [
            refs.prompt.submit(self.asked, [refs.prompt, refs.chosen], asked, js=take, **asks)
        ]
        for button in refs.suggestions:
            ask = self._ask(str(button.value))
            events.append(button.click(ask, refs.chosen, asked, **asks))
        stream = {**often, "concurrency_limit": _STREAMS, "concurrency_id": "chat"}
        for number, column in enumerate(refs.columns):
            inputs = [*refs.sampling, refs.asked]
            for event in events:
                event.success(
                    self._stream(number), inputs, column, js=view.within_bounds(), **stream
                )
            column.stop(self._stop(number), refs.chosen, column, **PROMPT)
        refs.sampling[0].change(
            lambda temperature: gr.update(label=view.how(temperature)),
            refs.sampling[0],
            refs.how,
            js=view.within_bounds(),
            **PROMPT,
        )
        refs.clear.click(self.cleared, refs.chosen, [refs.problem, *refs.columns], **PROMPT)
        refs.differences.change(
            None,
            refs.differences,
            js="(on) => { window.amalgamChat?.differences(on); }",
            **PRIVATE,
        )
        demo.unload(self.leave)

    def beside(self, model_id: str, sources: Sequence[str]) -> Any:
        """The choice that shows a new model beside its base and its first experts."""
        offered = [model.id for model in self.library.models()]
        columns = [name for name in [*sources[: view.COLUMNS - 1], model_id] if name in offered]
        return gr.update(choices=offered, value=columns)

    def _ask(self, question: str) -> Callable[..., Any]:
        def ask(chosen: list[str], request: gr.Request) -> list[Any]:
            return self.asked(question, chosen, request)

        return ask

    def _stream(self, number: int) -> Callable[..., Any]:
        def stream(
            temperature: float,
            top_p: float,
            longest: float,
            seed: float,
            asked: Asked,
            request: gr.Request,
        ) -> Iterator[Any]:
            knobs = (temperature, top_p, longest, seed)
            yield from self.streamed(number, asked, knobs, request)

        return stream

    def _stop(self, number: int) -> Callable[..., Any]:
        def stop(chosen: list[str], request: gr.Request) -> Any:
            return self.stopped(number, chosen, request)

        return stop

    def prepared(self) -> None:
        """What models need is imported once the first page stands, not before it."""
        self.store.warm([])

    def opened(self, chosen: list[str]) -> Any:
        """The models on offer now; those chosen are loaded while the visitor reads."""
        self.library.refresh()
        offered = [model.id for model in self.library.models()]
        present = [model_id for model_id in chosen if model_id in offered]
        self.store.warm([self.library.get(model_id) for model_id in present])
        if present == chosen:  # the value stays the visitor's, who may be clicking meanwhile
            return gr.update(choices=offered)
        return gr.update(choices=offered, value=present)

    def chose(self, chosen: list[str], request: gr.Request) -> list[Any]:
        """Shows one column per chosen model, four at most."""
        present = [model_id for model_id in chosen if self.library.has(model_id)]
        columns = present[: view.COLUMNS]
        placed = self._placed(columns, request)
        group, warning = gr.skip(), ""
        if columns != chosen:
            group = gr.update(value=columns)  # which asks again, and finds nothing to complain of
            if len(present) > view.COLUMNS:
                gr.Info(f"Up to {view.COLUMNS} models answer side by side: take one away first.")
        boxes = [gr.update(visible=bool(model_id)) for model_id in placed]
        return [group, warning, *boxes, *self._columns(placed, request)]

    def asked(self, question: str, chosen: list[str], request: gr.Request) -> list[Any]:
        """Puts one question to every chosen model."""
        question = (question or "").strip()
        complaint = ""
        if not question:
            complaint = "Write a question first."
        elif len(question) > _MAX_PROMPT:
            complaint = f"The question has {len(question)} characters; {_MAX_PROMPT} are the most."
        elif not chosen:
            complaint = "Choose at least one model."
        elif gone := [model for model in chosen if not self.library.has(model)]:
            complaint = f"{escape(', '.join(gone))} is no longer there: take it away."
        if complaint:
            line = f'<p class="complaint">{complaint}</p>'
            return [Asked(), question, line, *[gr.skip()] * view.COLUMNS]
        models = self._placed(chosen, request)
        mark = secrets.token_hex(4)
        for model_id in filter(None, models):
            turn = self._talk(request, model_id).ask(question, mark)
            turn.note = "waiting"
        asked = Asked(question, models)
        return [asked, gr.skip(), "", *self._columns(models, request)]

    def streamed(
        self, number: int, asked: Asked, knobs: Sequence[float], request: gr.Request
    ) -> Iterator[Any]:
        """Writes one model's answer into its column."""
        model_id = "".join(asked.models[number : number + 1])
        if not self.library.has(model_id):  # a free column, or a model deleted meanwhile
            yield gr.skip()
            return
        model = self.library.get(model_id)
        talk = self._talk(request, model.id)
        turn = next((t for t in reversed(talk.turns) if t.state == "waiting"), None)
        if turn is None:
            yield view.drawn(self.library, model.id, talk)
            return
        stop = talk.stop
        try:
            for rate in self._guarded(model, talk, turn, knobs):
                if self.talks.column(_visitor(request), number) != model.id:
                    return
                current = self._talk(request, model.id)
                yield view.drawn(self.library, model.id, current, rate)
                if current is not talk:  # cleared: what was sent before may arrive after it
                    return
        finally:
            stop.set()  # where the visitor left or the column changed, the answer ends here
            if turn.state in ("waiting", "running"):
                turn.state, turn.note = "over", "stopped"

    def _guarded(
        self, model: Model, talk: Talk, turn: Turn, knobs: Sequence[float]
    ) -> Iterator[str]:
        """As `_answered`, with loading before it and errors in words; yields the rate to show."""
        try:
            if not self.store.holds(model):
                turn.note = f"loading {amount(self.store.size_bytes(model))}"
                yield ""
            yield from self._answered(model, talk, turn, knobs)
        except Cancelled:  # `halt` has said so
            yield ""
        except MergeError as error:
            turn.state, turn.note = "failed", str(error)
            yield ""
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("chat with %s failed (%s)", model.id, mark)
            turn.state, turn.note = "failed", f"Something went wrong on our side (log id {mark})."
            yield ""

    def _answered(
        self, model: Model, talk: Talk, turn: Turn, knobs: Sequence[float]
    ) -> Iterator[str]:
        """Fills a turn as the answer grows; yields the rate to show."""
        temperature, top_p, longest, seed = knobs
        sampling = Sampling(int(longest), float(temperature), float(top_p), int(seed or 0))
        stop = talk.stop
        chat = self.store.get(model, stop)
        if turn.state != "waiting":  # stopped while the model was loading
            yield ""
            return
        place = self.store.place(model, chat)
        turn.state, turn.note = "running", " · ".join(filter(None, ["thinking", place]))
        yield ""
        messages = talk.messages(turn)
        for chunk in aside(chat.stream(messages, sampling, stop=stop, every_s=_EVERY_S)):
            turn.answer = chunk.text
            rate = f"{chunk.tokens_per_second:.0f} tokens/s" if chunk.tokens else ""
            if chunk.finish:
                turn.state = "over"
                turn.note = " · ".join(filter(None, [view.note(chunk, chat.has_template), place]))
                turn.answer = chunk.text or "(no answer)"
            elif turn.state == "running":
                turn.note = f"{chunk.tokens} tokens"
            yield rate

    def stopped(self, number: int, chosen: list[str], request: gr.Request) -> Any:
        """Stops the answer in one column, and says so at once: its stream may still wait."""
        model_id = self._placed(chosen, request)[number]
        if not model_id or not self.library.has(model_id):
            return gr.skip()
        talk = self._talk(request, model_id)
        talk.halt()
        return view.drawn(self.library, model_id, talk)

    def cleared(self, chosen: list[str], request: gr.Request) -> list[Any]:
        """Begins all conversations anew, in the columns as they stand."""
        self.talks.clear(_visitor(request))
        return ["", *self._columns(self._placed(chosen, request), request)]

    def leave(self, request: gr.Request) -> None:
        """The visitor closed the page: answers stop, conversations go."""
        self.talks.forget(_visitor(request))

    def _placed(self, chosen: Sequence[str], request: gr.Request) -> tuple[str, ...]:
        """The model of each column, "" where it is free."""
        return self.talks.arrange(_visitor(request), chosen[: view.COLUMNS], view.COLUMNS)

    def _columns(self, placed: Sequence[str], request: gr.Request) -> list[Any]:
        return [
            view.drawn(self.library, model_id, self._talk(request, model_id))
            if model_id and self.library.has(model_id)
            else gr.skip()
            for model_id in placed
        ]

    def _talk(self, request: gr.Request, model_id: str) -> Talk:
        return self.talks.get(_visitor(request), model_id)


def _visitor(request: gr.Request) -> str:
    return str(request.session_hash)
