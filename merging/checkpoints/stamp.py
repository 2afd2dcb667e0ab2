"""Whether a file is still the one that was read, without reading it again.

Its bytes cannot change without the system's change time (ctime) moving, which no program can set
back as it can the modification time. Content checksums of all inputs would say the same and cost
as much as the merge.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from merging.errors import BadCheckpoint


class Stamp(NamedTuple):
    """What the system knows of a file; equal only while its bytes are the same."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


def stamp(file: Path) -> Stamp | None:
    """The file's stamp; None where none can be had: it is absent, or not to be reached."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return Stamp(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def check_unchanged(name: str, stamps: Mapping[Path, Stamp | None]) -> None:
    """Raises BadCheckpoint where a file of model `name` is no longer the one of its stamp."""
    for file, before in stamps.items():
        now = stamp(file)
        if now != before:
            what = "is gone" if now is None else "has changed"
            raise BadCheckpoint(
                f"{name}: {file} {what} since it was opened; let whatever writes it finish, then "
                "start again"
            )


def stamps_of(files: Iterable[Path]) -> dict[Path, Stamp | None]:
    """The stamps of some files."""
    return {file: stamp(file) for file in files}


__all__ = ["Stamp", "check_unchanged", "stamp", "stamps_of"]
