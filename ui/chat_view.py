"""What the Chat tab shows: its columns, suggestions and sampling controls, and plain values."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from merging.demo.tasks import suggested_prompts
from merging.trial.turns import Chunk
from ui.figures import COLOURS
from ui.library import Library
from ui.talks import Talk
from ui.units import span

COLUMNS = 4
_TEMPLATE = """<article class="talk"><header><i class="dot"></i><h3 class="name"></h3>
<span class="tag"></span><span class="rate"></span>
<button type="button" class="stop" hidden>Stop</button></header>
<div class="turns" role="log" aria-live="polite" tabindex="0"></div><p class="hint"></p>
</article>"""


def chat_column(number: int, value: dict[str, Any]) -> gr.HTML:
    """One model's conversation; `value` is what `drawn` gives. Its event "stop" is its button.

    Args:
        number: 0..3, the place of the column.
    """
    return gr.HTML(
        value,
        html_template=_TEMPLATE,
        apply_default_css=False,
        js_on_load=f"amalgamChat.mount(element, {number}, props, watch, () => trigger('stop'))",
    )


def suggestions() -> tuple[gr.Button, ...]:
    """Buttons that ask a question of the built-in family's domains."""
    with gr.Row(elem_classes="suggestions"):
        return tuple(
            gr.Button(prompt, size="sm", elem_classes=f"domain-{domain}")
            for domain, prompts in suggested_prompts().items()
            for prompt in prompts[:2]
        )


def how(temperature: float) -> str:
    """The heading of the sampling controls: what they are set to."""
    return f"How answers are chosen: {f'temperature {temperature:g}' if temperature else 'greedy'}"


_SAMPLING = ((0, 2, 0), (0.05, 1, 1), (1, 1024, 128), (0, 2**31 - 1, 0))
"""Temperature, top-p, longest answer and seed: lowest, highest, default."""


def within_bounds() -> str:
    """JavaScript that brings the first inputs, sampling's, within their bounds; what was emptied
    gets its default. Others pass."""
    return (
        f"(...values) => values.map((value, i) => {{ const bound = {json.dumps(_SAMPLING)}[i]; "
        "return bound ? Math.min(bound[1], Math.max(bound[0], Number.isFinite(value) ? value : "
        "bound[2])) : value; })"
    )


def sampling() -> tuple[gr.Accordion, tuple[Any, ...]]:
    """Temperature, top-p, longest answer and seed, shared by all columns, and what holds them."""
    with gr.Accordion(how(0), open=False, elem_classes="card") as group:
        gr.HTML(
            "<p class='quiet'>At temperature 0 the most likely token is taken, so answers differ "
            "only because the weights do. Above 0, tokens are drawn; the same seed draws the same "
            "answer.</p>"
        )
        heat, top_p, longest, seed = _SAMPLING
        with gr.Row():
            return group, (
                gr.Slider(*heat, step=0.05, label="Temperature", interactive=True),
                gr.Slider(*top_p, step=0.05, label="Top-p", interactive=True),
                gr.Slider(*longest, step=1, label="Longest answer, in tokens", interactive=True),
                gr.Number(
                    seed[2],
                    label="Seed",
                    precision=0,
                    minimum=seed[0],
                    maximum=seed[1],
                    interactive=True,
                ),
            )


def note(chunk: Chunk, has_template: bool) -> str:
    """What stands beneath a finished answer."""
    parts = [f"{chunk.tokens} token{'' if chunk.tokens == 1 else 's'}", span(chunk.seconds)]
    if chunk.finish == "length":
        parts.append("cut at the longest answer")
    elif chunk.finish == "stopped":
        parts.append("stopped")
    if not has_template:
        parts.append("no chat template: plain completion")
    return " · ".join(parts)


_TAGS = {"demo": "", "folder": "", "merged": "merged"}
EMPTY = {
    "name": "",
    "label": "",
    "tag": "",
    "rate": "",
    "tone": 0,
    "kind": "folder",
    "hint": "",
    "turns": [],
}


def drawn(library: Library, model_id: str, talk: Talk, rate: str = "") -> dict[str, Any]:
    """A column's value: plain text and numbers only."""
    model = library.get(model_id)
    place = list(library.models()).index(model)
    return {
        "name": model.id,
        "label": model.label,
        "tag": _TAGS[model.kind],
        "rate": rate,
        "kind": model.kind,
        "hint": "No question yet.",
        "tone": (place - 1) % len(COLOURS) + 1 if place else 0,
        "turns": talk.drawn(),
    }
