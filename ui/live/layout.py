"""The components of the live model: a switch, the prompts it is asked, and its answers."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ui.library import Library
from ui.live.probes import first_probes


@dataclass(frozen=True)
class LiveRefs:
    """The card's components.

    Attributes:
        on: whether the merge answers while sliders move.
        prompts: what it is asked, a line each.
        board: the answers.
    """

    on: gr.Checkbox
    prompts: gr.Textbox
    board: gr.HTML


def build(library: Library) -> LiveRefs:
    """Builds the card inside the column of plots."""
    base, experts = library.default_selection()
    with gr.Column(elem_classes=["card", "live"], elem_id="live"):
        on = gr.Checkbox(
            False,
            label="Live: hear the merge answer while you move a slider",
            info="Merges in memory; nothing is written.",
            interactive=True,
            elem_id="live-on",
        )
        board = gr.HTML("", visible=False, elem_id="live-board", apply_default_css=False)
        prompts = gr.Textbox(
            first_probes([base, *experts]),
            label="Prompts, one per line",
            info="After => the right answer, if there is one.",
            lines=4,
            max_lines=8,
            visible=False,
            interactive=True,
            elem_id="live-prompts",
        )
    return LiveRefs(on, prompts, board)
