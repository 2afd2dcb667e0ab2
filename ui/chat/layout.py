"""The Chat tab's components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.chat import view
from ui.chat.questions import BOUNDS
from ui.library import RECORD, Library

CHANNELS = 4  # answers that one page gets at the same time
_MOUNT = """
const mount = () => window.amalgamChat
  ? window.amalgamChat.{part}(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers {events}
"""
_BOARD = """<div class="chat-board"><div class="chat-tools" role="toolbar"
aria-label="Conversation"></div><p class="chat-undo" hidden></p><div class="chat-heads"></div>
<div class="chat-rows"></div><div class="sr-only" role="log" aria-live="polite"
aria-label="Finished answers"></div></div>"""
_TALLY = """<section class="tally card" aria-label="Votes" hidden></section>"""
_EXAMPLES = """<p id="chat-problem" class="complaint" role="alert"></p>
<div class="suggestions" role="group" aria-label="Examples"></div>"""


@dataclass(frozen=True)
class ChatRefs:
    """Components of the tab.

    Attributes:
        board: columns and rows, drawn by `assets/chat.js` over `view.board`.
        tally: standings by votes, drawn by `assets/chat_blind.js` over `votes.drawn`.
        channels: where answers arrive; each asks for one at a time.
        settings: temperature, top-p, longest answer, seed and system prompt.
        stored: what the browser kept, on its way to the server.
    """

    chosen: gr.CheckboxGroup
    board: gr.HTML
    channels: tuple[gr.HTML, ...]
    prompt: gr.Textbox
    examples: gr.HTML
    tally: gr.HTML
    settings: tuple[gr.Slider | gr.Number | gr.Textbox, ...]
    how: gr.Accordion
    stored: gr.JSON


def layout(library: Library) -> ChatRefs:
    """Builds the tab's components inside the open gr.Tab."""
    chosen = first_models(library)
    models = gr.CheckboxGroup(
        view.choices(library),
        value=chosen,
        label="Models",
        interactive=True,
        elem_classes="chips",
        info=f"Up to {view.COLUMNS} answer side by side.",
        elem_id="chat-models",
    )
    value = view.board(library, chosen)
    board = _hosted("board", value, _BOARD, elem_id="chat-board")
    channels = tuple(
        _hosted("channel", None, "", "'ask' and 'stop'", elem_classes="chat-channel")
        for _ in range(CHANNELS)
    )
    prompt = gr.Textbox(
        show_label=False,
        label="Question",
        placeholder="Ask all of them…",
        lines=1,
        max_lines=6,
        submit_btn="Send",
        interactive=True,
        elem_id="chat-prompt",
        autofocus=False,
    )
    examples = _hosted("examples", value, _EXAMPLES, elem_id="chat-examples")
    how, settings = _settings()
    tally = _hosted("tally", None, _TALLY, "'count'", elem_id="chat-tally")
    stored = gr.JSON(visible=False)
    return ChatRefs(models, board, channels, prompt, examples, tally, settings, how, stored)


def first_models(library: Library) -> list[str]:
    """The models that answer at first: the base, an expert, and the latest merge or one more."""
    base, experts = library.default_selection()
    shape = library.get(base).shape if base else ()
    merged = [m for m in library.models() if m.kind == "merged" and m.shape == shape]
    merged.sort(key=lambda model: (model.folder / RECORD).stat().st_mtime)
    latest = [model.id for model in merged[-1:]]
    return [name for name in [base, *experts[:1], *(latest or experts[1:2])] if name]


def _hosted(
    part: str, value: object, template: str, events: str = "nothing", **arguments: Any
) -> gr.HTML:
    """A component whose HTML never changes: `assets/chat.js` fills it."""
    return gr.HTML(
        value,
        html_template=template,
        apply_default_css=False,
        js_on_load=_MOUNT.replace("{part}", part).replace("{events}", events),
        **arguments,
    )


def _settings() -> tuple[gr.Accordion, tuple[gr.Slider | gr.Number | gr.Textbox, ...]]:
    """The system prompt and the sampling, shared by all columns, and what holds them."""
    with gr.Accordion(view.how(0), open=False, elem_classes="card") as group:
        gr.HTML(
            "<p class='quiet'>At temperature 0 the most likely token is taken, so answers differ "
            "only because the weights do. Above 0, tokens are drawn; the same seed draws the same "
            "answer.</p>"
        )
        with gr.Row(elem_classes="controls", elem_id="chat-sampling"):
            heat, top_p, longest, seed = BOUNDS.values()
            sampling = (
                gr.Slider(*heat, step=0.05, label="Temperature", interactive=True),
                gr.Slider(*top_p, step=0.05, label="Top-p", interactive=True),
                gr.Slider(*longest, step=1, label="Longest answer, in tokens", interactive=True),
                gr.Number(
                    seed.first,
                    label="Seed",
                    precision=0,
                    minimum=seed.least,
                    maximum=seed.most,
                    interactive=True,
                ),
            )
        system = gr.Textbox(
            label="System prompt",
            info="Stands before every conversation, where a model's chat template takes one.",
            lines=1,
            max_lines=6,
            interactive=True,
            elem_id="chat-system",
        )
    return group, (*sampling, system)
