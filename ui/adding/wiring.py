"""Which part of "Add a model" asks for what, and what the answer fills."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.adding.layout import AddingRefs
from ui.adding.tab import AddingTab
from ui.events import CHEAP, PROMPT


def wire(demo: gr.Blocks, refs: AddingRefs, tab: AddingTab, base: Any) -> None:
    """Attaches the events.

    Args:
        base: the component with the base that is chosen.
    """
    gr.on(
        [refs.look.click, refs.reference.submit],
        tab.looked,
        [refs.reference, base],
        [refs.said, refs.facts, refs.pinned, refs.add],
        trigger_mode="once",
        **CHEAP,
    )
    begun = [refs.said, refs.job_id, refs.changed, refs.chosen]
    seen = [refs.said, refs.progress, refs.cancel, refs.changed, refs.chosen]
    followed = [refs.resume, refs.files, refs.remove]
    added = refs.add.click(
        tab.started, [refs.pinned, refs.changed], begun, trigger_mode="once", **PROMPT
    )
    resumed = refs.resume.click(tab.resumed, refs.chosen, begun, trigger_mode="once", **PROMPT)
    loaded = demo.load(tab.arrived, None, [refs.job_id, refs.chosen], **CHEAP)
    for begin in (added, resumed, loaded):
        begin.then(tab.watched, [refs.job_id, refs.changed], seen, **CHEAP)
    added.then(lambda: ("", gr.update(interactive=False)), None, [refs.pinned, refs.add], **PROMPT)
    refs.cancel.click(tab.cancelled, refs.job_id, refs.cancel, **PROMPT)
    refs.chosen.change(tab.chosen, refs.chosen, followed, **PROMPT)
    refs.remove.click(
        tab.removed,
        [refs.chosen, refs.files, refs.changed],
        [refs.said, refs.changed, refs.chosen],
        trigger_mode="once",
        **PROMPT,
    )
