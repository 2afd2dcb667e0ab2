"""The models that people added on a page: folders, and models of the Hub; one small file of them.

It lies hidden beside the models, so that whoever starts the app over that folder with --allow-hub
again has them again. Without it nobody reads it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from merging.errors import BadFile, MergeError, ModelNotFound
from merging.run.notes import write_whole
from merging.system.documents import read_object

FILE = ".added.json"
_LOCK = ".added.lock"
MOST = 200
_TEXTS = ("id", "folder", "repo", "commit", "revision", "licence")


@dataclass(frozen=True)
class AddedModel:
    """One of them.

    Attributes:
        id: what recipes call it: the folder's path, or "org/name@commit".
        folder: where its files are, or will be.
        repo, commit: of the Hub; "" for a folder.
        revision: what was asked for; "" for the main branch.
        licence: as its card stated it.
        is_whole: False while it is being fetched, or where that was ended.
        is_fetched: True where its files were fetched from here, so that they may be deleted.
    """

    id: str
    folder: str
    repo: str = ""
    commit: str = ""
    revision: str = ""
    licence: str = ""
    is_whole: bool = True
    is_fetched: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """What it may be called: the more of it the fewer others are called so."""
        return tuple(self.repo.split("/")) if self.repo else Path(self.folder).parts


class Added:
    """The list. Safe to share between threads, and between servers over one folder.

    Args:
        folders: those of models; the list is in the first that has one, or can be written.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [Path(os.path.realpath(folder)) for folder in folders]
        self._writing = threading.Lock()

    @property
    def file(self) -> Path:
        """Where the list is, or will be."""
        files = [folder / FILE for folder in self._folders]
        there = next((file for file in files if file.exists()), None)
        return there or next((file for file in files if _is_writable(file.parent)), files[0])

    def models(self) -> list[AddedModel]:
        """Every model of the list, in the order in which they were added.

        Raises:
            BadFile: the file cannot be read, or is no such list.
        """
        file = self.file
        if not file.exists():
            return []
        entries = read_object(file).get("models")
        if not isinstance(entries, list):
            raise BadFile(f"{file}: holds no list of models")
        models = [_read(entry, file) for entry in entries]
        return list({model.id: model for model in models}.values())

    def get(self, model_id: str) -> AddedModel:
        """The model of this id. Raises ModelNotFound, BadFile."""
        model = next((model for model in self.models() if model.id == model_id), None)
        if model is None:
            raise ModelNotFound("that model is not in the list any more")
        return model

    def put(self, model: AddedModel) -> None:
        """Adds a model, or changes the one of its id. Its files stay whose they were.

        Raises:
            MergeError: there are as many as there may be, or the list cannot be read or written.
        """
        with self._changing() as models:
            before = next((one for one in models if one.id == model.id), None)
            if before is not None:
                fetched = model.is_fetched or before.is_fetched
                models[models.index(before)] = replace(model, is_fetched=fetched)
            elif len(models) >= MOST:
                raise MergeError(f"{MOST} models were added already; remove one from the list")
            else:
                models.append(model)

    def remove(self, model_id: str) -> None:
        """Takes a model off the list; its files stay. Raises MergeError as `put`."""
        with self._changing() as models:
            models[:] = [model for model in models if model.id != model_id]

    @contextmanager
    def _changing(self) -> Iterator[list[AddedModel]]:
        file = self.file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with self._writing, (file.parent / _LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                models = self.models()
                yield models
                document = {"models": [asdict(model) for model in models]}
                write_whole(file, json.dumps(document, indent=1) + "\n")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise MergeError(f"{file}: the list cannot be written ({reason})") from None


def _read(entry: Any, file: Path) -> AddedModel:
    entry = entry if isinstance(entry, dict) else {}
    texts = {name: entry.get(name, "") for name in _TEXTS}
    if not all(isinstance(text, str) for text in texts.values()) or not texts["id"]:
        raise BadFile(f"{file}: holds an entry that is no model")
    return AddedModel(
        **texts,
        is_whole=entry.get("is_whole") is True,
        is_fetched=entry.get("is_fetched") is True,
    )


def _is_writable(folder: Path) -> bool:
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return os.access(nearest, os.W_OK)
