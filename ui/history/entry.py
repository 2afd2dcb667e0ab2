"""One line of the history: a model that a merge made, or a setting that was bookmarked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from merging.recipe import Recipe
from merging.run.notes import Notes

Kind = Literal["model", "bookmark"]


@dataclass(frozen=True)
class Entry:
    """What the disk says of it.

    Attributes:
        id: names it to pages: what it is, and which.
        path: a model's folder, or a bookmark's file.
        made_s: when it was written, in seconds since 1970.
        text: the recipe as it stands there; "" where it cannot be read.
        recipe: None where the text is none.
        problem: what is wrong with it, in one line; "" where nothing is.
        fixed: why it cannot be changed; "" where it can.
        model: the id of a model on offer; "" for what is none.
    """

    id: str
    kind: Kind
    name: str
    path: Path
    made_s: float
    text: str = ""
    recipe: Recipe | None = None
    problem: str = ""
    fixed: str = ""
    fingerprint: str = ""
    model: str = ""
    notes: Notes = field(default_factory=Notes)
