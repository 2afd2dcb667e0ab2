"""What the app notes of a model that it wrote: how far its layers moved, and its scores."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from merging.checkpoints import open_checkpoint, resolve
from merging.errors import MergeError
from merging.recipe import Recipe
from merging.run.notes import Notes, titled, write_notes

if TYPE_CHECKING:
    from merging.live.keeping import Kept

_MOST_BYTES = 1 << 30  # of a model that is read once more
Scores = Mapping[str, Mapping[str, float]]


def note_merge(folder: Path, drift: Mapping[int | str | None, float]) -> None:
    """Notes what a merge measured. Where that cannot be written, the model is there all the same"""
    with contextlib.suppress(OSError):
        write_notes(folder, Notes(titled(drift)))


def note_live(kept: Kept, scores: Scores) -> None:
    """Notes what the live card said of what was written from memory, and how far it moved: that
    is read from the files, of models that are read in a moment."""
    drift = _moved(kept.out, kept.recipe)
    if drift or scores:
        with contextlib.suppress(OSError):
            write_notes(kept.out, Notes(drift, scores))


def _moved(folder: Path, recipe: Recipe) -> dict[str, float]:
    from merging.run.provenance import moved

    try:
        if not recipe.base or open_checkpoint(folder).size_bytes > _MOST_BYTES:
            return {}
        return titled(moved(folder, Path(resolve(recipe.base, recipe.folder))))
    except (MergeError, OSError):
        return {}
