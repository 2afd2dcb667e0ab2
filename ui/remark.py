"""A line that says how something went, to who sees it or hears it."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr


def remark(elem_id: str | None = None, elem_classes: Sequence[str] = ()) -> gr.HTML:
    """An empty line: it must be on the page before it speaks. Its value is HTML."""
    return gr.HTML(
        "",
        html_template="<div role='status'>${value}</div>",
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes=list(elem_classes),
    )
