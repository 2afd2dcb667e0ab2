"""The History tab's components."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ui.panel import PlotPanel
from ui.remark import remark

_ON_LOAD = """
const mount = () => window.amalgamHistory
  ? window.amalgamHistory.mount(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers 'bring', 'talk', 'drop', 'restore', 'rename', 'note' with an id and a text, and
         // 'compare' with ids
"""


@dataclass(frozen=True)
class HistoryRefs:
    """The components.

    Attributes:
        said: what was just done, or why it was not.
        board: all entries.
        comparison: of two entries; `both` tells their difference, `drift` draws it.
        recipe: the recipe that was asked for, on its way to Explore.
        warned: the entry whose renaming was answered with a warning.
    """

    said: gr.HTML
    comparison: gr.Column
    both: gr.HTML
    drift: PlotPanel
    board: gr.HTML
    recipe: gr.State
    warned: gr.State


def layout() -> HistoryRefs:
    """Builds the tab's components inside the open gr.Tab."""
    with gr.Column(elem_classes="history"):
        gr.HTML(
            "<h2>History</h2><p class='quiet'>Every merge that was kept, and every bookmarked "
            "setting. Tick two to compare them.</p>",
            apply_default_css=False,
        )
        said = remark("history-said")
        with gr.Column(visible=False, elem_classes="card", elem_id="comparison") as comparison:
            both = gr.HTML("", apply_default_css=False, elem_classes="both")
            drift = PlotPanel(title="How far each layer moved from the base", elem_id="both-drift")
        board = gr.HTML(
            "",
            html_template="<div class='history-board'></div>",
            js_on_load=_ON_LOAD,
            apply_default_css=False,
            elem_id="history-board",
        )
    return HistoryRefs(said, comparison, both, drift, board, gr.State(""), gr.State(""))
