"""What is told of a result beside its record: how far its layers moved, scores, a person's note.

The record holds what is the same whenever the recipe is run again, byte for byte; this file holds
the rest. It goes with the folder, and no later merge takes it over.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.errors import BadFile
from merging.system.documents import read_json

NOTES_FILE = "amalgam.notes.yaml"  # JSON is YAML; *.json files are a model's own
MOST_CHARACTERS = 4_000  # of a person's note
_MOST_LAYERS, _MOST_SCORES = 2_000, 64
_OUTSIDE = "rest"  # what is in no layer
_FIGURES = ("score", "low", "high", "n")


@dataclass(frozen=True)
class Notes:
    """What a file of notes says.

    Attributes:
        drift: by layer as written there ("0", "decoder 3", "rest"): ||merged - base|| / ||base||.
        scores: by skill, "score", "low" and "high", 0..1, and "n", the prompts.
        text: the note.
    """

    drift: Mapping[str, float] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    text: str = ""


def titled(drift: Mapping[int | str | None, float]) -> dict[str, float]:
    """A drift by layer as notes hold it."""
    return {_OUTSIDE if layer is None else str(layer): one for layer, one in drift.items()}


def read_notes(file: Path) -> Notes:
    """The notes in a file; empty where there are none, or what is there is nothing of the kind."""
    try:
        return from_document(read_json(file))
    except BadFile:
        return Notes()


def from_document(document: Any) -> Notes:
    """Notes as far as a document holds any."""
    if not isinstance(document, dict):
        return Notes()
    drift, scores = _mapping(document.get("drift")), _mapping(document.get("scores"))
    text = document.get("note")
    return Notes(
        {layer: one for layer, one in list(drift.items())[:_MOST_LAYERS] if _is_number(one)},
        {
            skill: {name: float(one[name]) for name in _FIGURES}
            for skill, one in list(scores.items())[:_MOST_SCORES]
            if isinstance(one, dict) and all(_is_number(one.get(name)) for name in _FIGURES)
        },
        text[:MOST_CHARACTERS] if isinstance(text, str) else "",
    )


def document_of(notes: Notes) -> dict[str, Any]:
    """What `from_document` reads."""
    return {
        "note": notes.text[:MOST_CHARACTERS],
        "scores": {skill: dict(one) for skill, one in notes.scores.items()},
        "drift": {layer: float(f"{one:.4g}") for layer, one in notes.drift.items()},
    }


def write_notes(folder: Path, notes: Notes) -> None:
    """Writes the notes of a model's folder. Raises OSError."""
    write_whole(folder / NOTES_FILE, json.dumps(document_of(notes), indent=1) + "\n")


def write_whole(file: Path, text: str) -> None:
    """Writes a small file in one step: who reads sees the old one or the new one. Raises OSError"""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, file)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
