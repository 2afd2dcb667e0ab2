"""Which component of the Chat tab asks for what, and what the answer fills."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.chat import view
from ui.chat.tab import ChatTab
from ui.events import CHEAP, PRIVATE, PROMPT

_STREAMS = 4  # answers written at the same time, all visitors together
_STREAM: dict[str, Any] = {
    **CHEAP,
    "trigger_mode": "multiple",  # a question must never be dropped
    "concurrency_limit": _STREAMS,
    "concurrency_id": "chat",
}
_RESTORE_JS = "() => [window.amalgamChat?.stored() ?? null]"
_ASK_JS = "(question, ...settings) => { window.amalgamChat.ask(question, settings); }"
_SET_JS = "(...settings) => { window.amalgamChat?.settings(settings); }"


def wire(demo: gr.Blocks, tab_item: gr.Tab, tab: ChatTab) -> None:
    """Attaches the tab's events."""
    refs = tab.refs
    drawn = [refs.board, refs.examples]
    refs.chosen.change(tab.chose, refs.chosen, [refs.chosen, *drawn], **CHEAP)
    tab_item.select(tab.opened, refs.chosen, refs.chosen, **PROMPT)
    demo.load(tab.prepared, **CHEAP)
    restored = [refs.chosen, *drawn, *refs.settings, refs.how]
    demo.load(tab.restored, refs.stored, restored, js=_RESTORE_JS, **PROMPT)
    settings = list(refs.settings)
    refs.prompt.submit(None, [refs.prompt, *settings], js=_ASK_JS, **PRIVATE)
    for setting in settings:
        setting.change(None, settings, js=_SET_JS, **PRIVATE)
    temperature = refs.settings[0]
    temperature.change(
        lambda value: gr.update(label=view.how(value)),
        temperature,
        refs.how,
        js="(value) => [window.amalgamChat.within('temperature', value)]",
        **PROMPT,
    )
    for channel in refs.channels:
        channel.ask(tab.answered, None, channel, **_STREAM)
        channel.stop(tab.stopped, None, None, **PROMPT)
    refs.tally.count(tab.counted, None, refs.tally, **{**PROMPT, "trigger_mode": "always_last"})
    demo.unload(tab.leave)
