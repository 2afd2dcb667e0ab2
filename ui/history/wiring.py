"""Which part of the History tab asks for what, and what the answer fills."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.events import PROMPT
from ui.history.layout import HistoryRefs
from ui.history.tab import HistoryTab


def wire(tab: gr.Tab, refs: HistoryRefs, history: HistoryTab, rooms: gr.Tabs, chosen: Any) -> None:
    """Attaches the tab's events.

    Args:
        rooms: the tabs.
        chosen: the models that Chat shows.
    """
    changed = [refs.said, refs.board]
    tab.select(history.looked, None, changed, **PROMPT)
    refs.board.drop(history.dropped, None, changed, **PROMPT)
    refs.board.restore(history.restored, None, changed, **PROMPT)
    refs.board.note(history.noted, None, changed, **PROMPT)
    refs.board.rename(history.renamed, refs.warned, [*changed, refs.warned], **PROMPT)
    refs.board.talk(history.talked, None, [rooms, chosen, *changed], **PROMPT)
    side_by_side = [refs.comparison, refs.both, refs.drift, refs.said]
    refs.board.compare(history.compared, None, side_by_side, **PROMPT)


def bring(refs: HistoryRefs, history: HistoryTab) -> tuple[Any, Any]:
    """The event that brings a recipe to Explore, and the component with its text."""
    asked = refs.board.bring(history.brought, None, refs.recipe, **PROMPT)
    return asked.then, refs.recipe
