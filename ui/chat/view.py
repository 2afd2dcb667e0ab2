"""What the Chat tab shows, as plain values: its columns, and words beneath answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merging.trial.turns import Chunk
from ui.chat.examples import examples
from ui.chat.questions import MOST_CHARACTERS
from ui.chat.speakers import LIVE
from ui.library import Library
from ui.looks import look, shape
from ui.units import span

COLUMNS = 4
_TAGS = {"demo": "", "folder": "", "merged": "merged", "hub": "Hub"}


def choices(library: Library) -> list[str | tuple[str, str]]:
    """Every model on offer by its id; one that was added by its label, since its id is a path, or
    has a commit of forty digits."""
    return [(model.label, model.id) if model.is_added else model.id for model in library.models()]


def how(temperature: float) -> str:
    """The heading of the sampling controls: what they are set to."""
    return f"How answers are chosen: {f'temperature {temperature:g}' if temperature else 'greedy'}"


def note(chunk: Chunk, has_template: bool, interrupted: str = "stopped") -> str:
    """What stands beneath a finished answer; `interrupted` where it was ended."""
    parts = [f"{chunk.tokens} token{'' if chunk.tokens == 1 else 's'}", span(chunk.seconds)]
    if chunk.finish == "length":
        parts.append("cut at the longest answer")
    elif chunk.finish == "stopped":
        parts.append(interrupted)
    if not has_template:
        parts.append("no chat template: plain completion")
    return " · ".join(parts)


def board(library: Library, chosen: Sequence[str]) -> dict[str, Any]:
    """The columns of these models, questions to begin with, and how long one may be."""
    models = [library.get(model_id) for model_id in chosen if model_id != LIVE]
    return {
        "columns": [_column(library, model_id) for model_id in chosen],
        "examples": examples(library, models),
        "most": MOST_CHARACTERS,
    }


def _column(library: Library, model_id: str) -> dict[str, Any]:
    if model_id == LIVE:
        return {"name": LIVE, "label": LIVE, "tag": "", "kind": "merged", "tone": "live"}
    model = library.get(model_id)
    seat = library.seat(model_id)
    return {
        "name": model.id,
        "label": model.label,
        "tag": _TAGS[model.kind],
        "kind": model.kind,
        "tone": shape(seat) + 1,
        "colour": look(model.label, seat).colour,
    }
