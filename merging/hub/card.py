"""What a model card says by its metadata: the licence, and what the model was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.errors import BadFile, one_line
from merging.system import bounded_yaml
from merging.system.documents import read_text

_FENCE = "---\n"
_MOST = 5  # base models, licences


@dataclass(frozen=True)
class Card:
    """A card's metadata.

    Attributes:
        licence: as the card spells it ("apache-2.0"); "" where it states none.
        bases: the models that it names as its base.
    """

    licence: str = ""
    bases: tuple[str, ...] = ()


def card_of(folder: Path) -> Card:
    """The card in a model's folder (README.md). One that cannot be read says nothing."""
    try:
        text = read_text(folder / "README.md").replace("\r\n", "\n")
        start, end = len(_FENCE), text.find(f"\n{_FENCE}", len(_FENCE) - 1)
        if not text.startswith(_FENCE) or end < 0:
            return Card()
        return from_metadata(bounded_yaml.load(text[start : end + 1]))
    except BadFile:
        return Card()


def from_metadata(metadata: Any) -> Card:
    """Reads a card's metadata, whatever it is."""
    if not isinstance(metadata, Mapping):
        return Card()
    licences = _texts(metadata.get("license"))
    if licences == ["other"]:  # the name stands beside it
        licences = _texts(metadata.get("license_name")) or licences
    return Card(", ".join(licences), tuple(_texts(metadata.get("base_model"))))


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [one_line(text)[:100] for text in values[:_MOST] if isinstance(text, str) and text]
