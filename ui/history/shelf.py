"""The history as it lies on the disk: read, noted on, renamed, deleted and taken back."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from merging.checkpoints.stamp import Stamp
from merging.checkpoints.stamp import stamp as file_stamp
from merging.errors import MergeError, ModelNotFound, OutputExists
from merging.run import notes as notes_file
from merging.run.notes import NOTES_FILE, read_notes
from merging.run.provenance import Provenance, provenance
from ui.history import bookmarks, trash
from ui.history.entry import Entry
from ui.history.trash import Deleted
from ui.library import RECORD, Library

MOST = 300  # entries that a page shows


@dataclass(frozen=True)
class Shelf:
    """What there is, over the folders of a library. Safe to share between threads.

    Attributes:
        used: why a model's folder cannot be moved now; "" where it can.
    """

    library: Library
    used: Callable[[Path], str] = lambda folder: ""
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def entries(self) -> list[Entry]:
        """Everything, the latest first."""
        self.library.refresh()
        entries = (
            entry
            for shelf, root in self.library.roots().items()
            for entry in (*self._models(shelf, root), *_bookmarks(shelf, root))
        )
        return sorted(entries, key=lambda entry: (-entry.made_s, entry.id))

    def deleted(self) -> list[Deleted]:
        """What can be taken back, the last first."""
        gone = (
            one
            for shelf, root in self.library.roots().items()
            for one in trash.deleted(shelf, root)
        )
        return sorted(gone, key=lambda one: -one.deleted_s)

    def entry(self, entry_id: Any) -> Entry:
        """The entry of this id. Raises ModelNotFound."""
        entry = next((entry for entry in self.entries() if entry.id == entry_id), None)
        if entry is None:
            raise ModelNotFound("That entry is not there any more; another page may have moved it.")
        return entry

    def note(self, entry_id: Any, text: str) -> Entry:
        """Writes a person's note. Raises MergeError where that cannot be."""
        with self._changing:
            entry = self._changeable(entry_id)
            notes = replace(entry.notes, text=text.strip()[: notes_file.MOST_CHARACTERS])
            with _in_words(entry.name):
                if entry.kind == "model":
                    notes_file.write_notes(entry.path, notes)
                else:
                    bookmarks.change_notes(entry, notes)
        return entry

    def rename(self, entry_id: Any, name: str) -> Entry:
        """Gives an entry another name, which no other has.

        Raises:
            BadName: not a plain name.
            OutputExists: it is taken.
            MergeError: the model is in use, or nothing can be written there.
        """
        with self._changing:
            entry = self._changeable(entry_id)
            name = self.library.plain_name(name)
            if name == entry.name:
                return entry
            root = self._root(entry)
            target = root / name if entry.kind == "model" else bookmarks.file_of(root, name)
            if os.path.lexists(target):
                raise OutputExists(f"{name} is taken; give another name")
            self._check_free(entry)
            with _in_words(entry.name):
                os.rename(entry.path, target)
        self.library.refresh()
        return entry

    def delete(self, entry_id: Any) -> Entry:
        """Moves an entry into the trash. Raises MergeError where it is in use, or cannot be."""
        with self._changing:
            entry = self._changeable(entry_id)
            self._check_free(entry)
            with _in_words(entry.name):
                trash.delete(self._root(entry), entry.kind, entry.path)
        self.library.refresh()
        return entry

    def take_back(self, deleted_id: Any) -> Deleted:
        """Undoes a deletion. Raises MergeError where that cannot be: another has the name."""
        with self._changing:
            gone = next((one for one in self.deleted() if one.id == deleted_id), None)
            if gone is None:
                raise ModelNotFound("That is not in the trash any more.")
            root = gone.path.parent.parent
            is_model = gone.kind == "model"
            target = root / gone.name if is_model else bookmarks.file_of(root, gone.name)
            if os.path.lexists(target):
                raise OutputExists(f"{gone.name} is taken by now: rename that one, then press Undo")
            with _in_words(gone.name):
                target.parent.mkdir(exist_ok=True)
                os.rename(gone.path, target)
        self.library.refresh()
        return gone

    def bookmark(self, text: str, name: str, scores: Any = None) -> str:
        """Sets a recipe down; the name that it got. Raises MergeError."""
        with self._changing:
            root = self.library.root()
            name = bookmarks.free_name(root, name)
            with _in_words(name):
                bookmarks.add(root, name, text, round(time.time(), 3), scores or {})
        return name

    def _models(self, shelf: str, root: Path) -> Iterator[Entry]:
        fixed = _fixed(root)
        for name in _names(root):
            file = root / name / RECORD
            stamp = file_stamp(file)
            if stamp is None:
                continue
            made = _provenance(root / name, stamp)
            model = f"{shelf}/{name}"
            on_offer = self.library.has(model)
            missing = "" if on_offer else self.library.reason(name) or "it is no model any more"
            yield Entry(
                f"model:{model}",
                "model",
                name,
                root / name,
                _time(file),
                made.text,
                made.recipe,
                made.problem or missing,
                fixed,
                made.fingerprint,
                model if on_offer else "",
                read_notes(root / name / NOTES_FILE),
            )

    def _changeable(self, entry_id: Any) -> Entry:
        entry = self.entry(entry_id)
        if entry.fixed:
            raise MergeError(f"{entry.name} cannot be changed: {entry.fixed}")
        return entry

    def _check_free(self, entry: Entry) -> None:
        reason = self.used(entry.path) if entry.kind == "model" else ""
        if reason:
            raise MergeError(f"{entry.name} {reason}")

    def _root(self, entry: Entry) -> Path:
        return entry.path.parent if entry.kind == "model" else entry.path.parent.parent


def _bookmarks(shelf: str, root: Path) -> Iterator[Entry]:
    fixed = _fixed(root / bookmarks.FOLDER)
    return (replace(entry, fixed=fixed) for entry in bookmarks.bookmarks(shelf, root))


def _fixed(folder: Path) -> str:
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    return f"the folder {folder} cannot be written by this server"


def _names(root: Path) -> list[str]:
    try:
        return [name for name in os.listdir(root) if not name.startswith(".")]
    except OSError:
        return []


@functools.lru_cache(maxsize=2_000)
def _provenance(folder: Path, _stamp: Stamp) -> Provenance:
    """Read once as long as the file stays."""
    return provenance(folder)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """What the system refuses becomes one line that names the entry."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise MergeError(
            f"{name}: the disk refuses ({reason}); see that the models folder can be written"
        ) from error
