"""Bookmarked settings: a recipe, when it was set down, a note and scores; one small file each.

They lie in a hidden folder beside the models, so that whoever sees the models sees them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from merging import recipe as recipes
from merging.errors import BadFile, MergeError
from merging.run import notes as notes_file
from merging.run.notes import Notes
from merging.system.documents import read_object
from ui.history.entry import Entry

FOLDER = ".bookmarks"
MOST = 500  # in one models folder
_ENDING = ".json"


def bookmarks(shelf: str, root: Path) -> Iterator[Entry]:
    """The bookmarks beside the models of a folder.

    Args:
        shelf: what pages call that folder.
    """
    for name in _names(root)[:MOST]:
        path = file_of(root, name)
        entry = Entry(f"bookmark:{shelf}/{name}", "bookmark", name, path, _time(path))
        try:
            document = read_object(path)
        except BadFile as error:
            yield replace(entry, problem=str(error).replace(str(path), path.name))
            continue
        yield _read(entry, document)


def add(root: Path, name: str, text: str, made_s: float, scores: Any) -> None:
    """Writes a new bookmark.

    Raises:
        MergeError: there are as many as there may be.
        OSError: it cannot be written.
    """
    if len(_names(root)) >= MOST:
        raise MergeError(f"there are {MOST} bookmarks; delete one in History")
    file = file_of(root, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    _write(file, text, made_s, Notes(scores=scores))


def change_notes(entry: Entry, notes: Notes) -> None:
    """Writes a bookmark's notes again. Raises OSError."""
    _write(entry.path, entry.text, entry.made_s, notes)


def file_of(root: Path, name: str) -> Path:
    """Where the bookmark of a name is."""
    return root / FOLDER / f"{name}{_ENDING}"


def free_name(root: Path, name: str) -> str:
    """`name`, or the next of name-2, name-3... that no bookmark has."""
    taken, count = set(_names(root)), 2
    free = name
    while free in taken:
        free, count = f"{name}-{count}", count + 1
    return free


def _write(file: Path, text: str, made_s: float, notes: Notes) -> None:
    document = {"made": made_s, "recipe": text, **notes_file.document_of(notes)}
    notes_file.write_whole(file, json.dumps(document, indent=1) + "\n")


def _read(entry: Entry, document: dict[str, Any]) -> Entry:
    text, made = document.get("recipe"), document.get("made")
    if isinstance(made, int | float) and 0 < made < 1e11:
        entry = replace(entry, made_s=float(made))
    if not isinstance(text, str):
        return replace(entry, problem=f"{entry.path.name} holds no recipe")
    entry = replace(entry, text=text, notes=notes_file.from_document(document))
    try:
        return replace(entry, recipe=recipes.parse(text))
    except MergeError as error:
        return replace(entry, problem=str(error))


def _names(root: Path) -> list[str]:
    try:
        files = os.listdir(root / FOLDER)
    except OSError:
        return []
    own = (file for file in files if file.endswith(_ENDING) and not file.startswith("."))
    return sorted(file.removesuffix(_ENDING) for file in own)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
