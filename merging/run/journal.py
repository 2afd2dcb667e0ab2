"""What of a merge is done, so that one that was killed can go on.

Every merge keeps a journal in its hidden folder: a line per finished tensor. It holds for the same
recipe over the same files, on the same engine, by the same version, and only until the machine is
started again: what a process has written survives its end in the system's file cache, but not a
power cut.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import astuple, dataclass
from pathlib import Path

from merging import __version__
from merging.checkpoints import Family
from merging.checkpoints.staging import Staging, abandoned
from merging.declarations.retention import Retention
from merging.engines.sources import family_key
from merging.errors import BadFile
from merging.recipe import Recipe, dump
from merging.system.documents import read_text

FILE = ".journal"
_MOST_BYTES = 64_000_000  # of a journal: 300,000 tensors
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Written:
    """What was written of one tensor.

    Attributes:
        changed, squared: sums of (merged - base) squared, and of base squared.
        checksum: of its bytes, see `merging.checkpoints.checksum`.
        retention: per expert, what is kept of its changes; empty where that is not known.
    """

    changed: float
    squared: float
    checksum: int
    retention: tuple[Retention, ...] = ()


class Journal:
    """The finished tensors of one merge. `note` may be called from any thread.

    Args:
        folder: where the merge writes; a journal found there is taken up.
        key: see `key_of`.

    Attributes:
        finished: tensor -> what was written of it.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._path = folder / FILE
        earlier = _read(self._path)
        self.finished = earlier[1] if earlier and earlier[0] == key else {}
        if not self.finished:
            self._path.write_text(json.dumps({"key": key}) + "\n")

    def note(self, name: str, written: Written) -> None:
        """A tensor is finished: all of it has been handed to the system."""
        line = (json.dumps({"tensor": name, "sums": astuple(written)}) + "\n").encode()
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, line)  # one write, appended: whole lines from any thread
        finally:
            os.close(handle)

    def remove(self) -> None:
        """The merge is complete."""
        self._path.unlink()


def key_of(recipe: Recipe, family: Family, shard_bytes: int, engine: str) -> str:
    """What must be the same for finished tensors to stay as they are."""
    boot = _BOOT.read_text() if _BOOT.exists() else str(os.getpid())
    parts = (__version__, dump(recipe), family_key(family), shard_bytes, engine, boot)
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def resumable(out: Path, key: str) -> Staging | None:
    """The hidden folder of a merge to `out` with this key that ended before it was complete, from
    now on our own."""
    for staging in abandoned(out):
        earlier = _read(staging.folder / FILE)
        if earlier and earlier[0] == key:
            return staging
        staging.let_go()
    return None


def _read(path: Path) -> tuple[str, dict[str, Written]] | None:
    """A journal's key and finished tensors; None if there is none. A torn last line is left out."""
    try:
        lines = read_text(path, _MOST_BYTES).splitlines()
        key = json.loads(lines[0])["key"]
    except (BadFile, ValueError, LookupError, TypeError, RecursionError):
        return None
    finished = {}
    for line in lines[1:]:
        try:
            entry = json.loads(line)
            changed, squared, checksum, rows = entry["sums"]
            counts = tuple(Retention(*map(float, row)) for row in rows)
            finished[str(entry["tensor"])] = Written(
                float(changed), float(squared), int(checksum), counts
            )
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
            break
    return str(key), finished


__all__ = ["FILE", "Journal", "Written", "key_of", "resumable"]
