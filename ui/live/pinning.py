"""Prompts that are asked, pinned and let go of, and what the browser remembers of them.

It remembers texts by base: {base: prompts, a line each}, the last few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ui.live import probes

_BASES = 20  # that are remembered
_MOST = probes.MOST * (2 * probes.LONGEST)  # characters of a text


def of_base(remembered: Any, models: Sequence[str]) -> str:
    """The prompts of a base, as the browser remembers them, or those to begin with.

    Args:
        models: the base, then the experts.
    """
    text = remembered.get(models[0]) if isinstance(remembered, dict) else None
    return text[:_MOST] if isinstance(text, str) else probes.first_probes(models)


def asked(question: str) -> tuple[str, str]:
    """An empty box, and the question."""
    return "", (question or "").strip()


def edited(text: str, family: str, remembered: Any) -> Any:
    """What the browser remembers once the text was edited."""
    if not family:
        return gr.skip()
    others = remembered if isinstance(remembered, dict) else {}
    texts = {base: own for base, own in others.items() if base != family}
    while len(texts) >= _BASES:
        del texts[next(iter(texts))]
    return {**texts, family: (text or "")[:_MOST]}


def pin(text: str, family: str, remembered: Any, asked: str) -> tuple[Any, Any, Any]:
    """The text with the question that was only asked; that stays such where the text is full."""
    added = probes.pinned(text, asked)
    return added, (asked if added == text else ""), edited(added, family, remembered)


def unpin(text: str, family: str, remembered: Any, event: gr.EventData) -> tuple[Any, Any, Any]:
    """The text without a prompt."""
    text = probes.unpinned(text, _prompt(event))
    return text, gr.skip(), edited(text, family, remembered)


def _prompt(event: gr.EventData) -> str:
    """The prompt of a button that was pressed."""
    data = event._data  # Gradio's way to what a component sends along
    return str(data.get("prompt", "")) if isinstance(data, dict) else ""
