"""What was deleted lies in a hidden folder beside the models until a server starts a day later.

To delete is to rename, and so is to take it back: nothing is copied, and nothing is lost between.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ui.history.entry import Kind

FOLDER = ".trash"
KEPT_S = 24 * 3600.0
_NAME = re.compile(r"(\d{9,11})-[0-9a-f]{8}-(model|bookmark)-(.+)")


@dataclass(frozen=True)
class Deleted:
    """Something that can be taken back.

    Attributes:
        deleted_s: when, in seconds since 1970.
        size: bytes on the disk.
    """

    id: str
    kind: Kind
    name: str
    path: Path
    deleted_s: float
    size: int


def delete(root: Path, kind: Kind, path: Path) -> Path:
    """Moves a folder or a file into the trash of its models folder; its new place.

    Raises:
        OSError: the system refuses.
    """
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    place = folder / f"{time.time():.0f}-{secrets.token_hex(4)}-{kind}-{path.name}"
    os.rename(path, place)
    return place


def deleted(shelf: str, root: Path) -> Iterator[Deleted]:
    """What lies in the trash of a models folder, the last first."""
    for name in sorted(_listed(root), reverse=True):
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        when, kind, own = match.groups()
        path = root / FOLDER / name
        yield Deleted(
            f"deleted:{shelf}/{name}",
            "model" if kind == "model" else "bookmark",
            own if kind == "model" else own.removesuffix(".json"),
            path,
            float(when),
            _size(path),
        )


def empty_trash(roots: Sequence[Path], now: float | None = None) -> None:
    """Removes for good what was deleted more than a day ago. What cannot be removed stays."""
    latest = (time.time() if now is None else now) - KEPT_S
    for root in roots:
        for name in _listed(root):
            match = _NAME.fullmatch(name)
            path = root / FOLDER / name
            if match is None or float(match.group(1)) > latest:
                continue
            with contextlib.suppress(OSError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        with contextlib.suppress(OSError):
            (root / FOLDER).rmdir()  # where nothing is left in it


def _listed(root: Path) -> list[str]:
    try:
        return os.listdir(root / FOLDER)
    except OSError:
        return []


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    size = 0
    with contextlib.suppress(OSError):
        for file in files:
            size += file.lstat().st_size
    return size
