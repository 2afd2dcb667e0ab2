"""The hidden folder beside a target where work in progress lies, and to whom it belongs.

A folder belongs to the process that holds the lock of a file inside it. The system lets go of the
lock when that process ends, however it ends, and whoever shares the disk sees it: a process number
says nothing to another container. Where a file system knows no locks, no folder counts as
abandoned.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path

LOCK = ".lock"
_SETTLING_S = 60.0  # a folder without a lock may be about to get one, or to be renamed
_MARK = r"(?:\d+-)?[0-9a-f]+"
_own: set[Path] = set()  # of this process: some file systems let one process lock a file twice


class Staging:
    """A hidden folder that is this process's own until `let_go`.

    Attributes:
        folder: where it is.
        is_locked: False where the file system knows no locks.
        made: folders above it that were made for it, the innermost first.
    """

    def __init__(self, folder: Path, lock: int, *, is_locked: bool) -> None:
        self.folder, self.is_locked = folder, is_locked
        self.made: list[Path] = []
        self._lock: int | None = lock
        _own.add(folder)

    def let_go(self) -> None:
        """From now on the folder is whose finds it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            _own.discard(self.folder)
            os.close(lock)

    def bring_to_disk(self, but: Collection[Path] = ()) -> None:
        """All files and folders inside, so that the folder may be renamed.

        Args:
            but: files that are on the disk already.
        """
        folders = [self.folder]
        for path in sorted(self.folder.rglob("*")):
            if path.is_dir():
                folders.append(path)
            elif path not in but:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        for folder in folders:
            sync_folder(folder)

    def unlock(self) -> None:
        """The folder is complete and about to be renamed: its lock is no part of it."""
        (self.folder / LOCK).unlink(missing_ok=True)
        sync_folder(self.folder)

    def remove(self) -> None:
        """Removes the folder with all that is in it, and what was made for it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are using it by now
            for folder in self.made:
                folder.rmdir()
        self.let_go()


def new(out: Path, kind: str = "partial") -> Staging:
    """A new hidden folder beside `out`, whose parents are made where absent. Raises OSError."""
    made = [parent for parent in out.parents if not parent.exists()]
    while True:
        folder = unused(out, kind)
        folder.mkdir(parents=True)
        staging = _taken(folder, os.O_CREAT)
        if staging is not None:
            staging.made = made
            return staging


def unused(out: Path, kind: str = "partial") -> Path:
    """A name for a hidden sibling of `out`."""
    return out.parent / f".{out.name}.{kind}-{os.urandom(6).hex()}"


def abandoned(out: Path, kind: str = "partial") -> Iterator[Staging]:
    """The hidden folders of `out` whose process ended before they were complete: each is ours
    until it is let go."""
    pattern = re.compile(rf"\.{re.escape(out.name)}\.{kind}-{_MARK}")
    try:
        names = sorted(filter(pattern.fullmatch, os.listdir(out.parent)))
    except OSError:
        return
    for folder in (out.parent / name for name in names):
        staging = None
        with contextlib.suppress(OSError):  # it is gone, or not ours to write
            if folder not in _own and not folder.is_symlink():
                staging = _taken(folder, os.O_CREAT if _is_forgotten(folder) else 0)
        if staging is not None and staging.is_locked:
            yield staging
        elif staging is not None:
            staging.let_go()


def remove_abandoned(out: Path) -> None:
    """Removes them, and an old `out` whose process ended after it had been replaced."""
    old = list(abandoned(out, "old"))
    for folder in (*abandoned(out), *old):
        if folder not in old or out.exists():  # else it is all there is
            folder.remove()
        folder.let_go()


def exchange(first: Path, second: Path) -> bool:
    """Swaps two names in one step: neither is ever absent. False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    current, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(current, os.fsencode(first), current, os.fsencode(second), swap) == 0


def sync_folder(folder: Path) -> None:
    """Brings a folder's names to the disk, where its file system can do that apart."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _taken(folder: Path, flags: int) -> Staging | None:
    """The folder as our own; None where another has it. Raises OSError: it cannot be written."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # whoever had it may have removed it, and the file we locked with it
        is_there = os.path.samestat(os.fstat(lock), os.stat(folder / LOCK))
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    except OSError:
        return Staging(folder, lock, is_locked=False)
    if is_there:
        return Staging(folder, lock, is_locked=True)
    os.close(lock)
    return None


def _is_forgotten(folder: Path) -> bool:
    """True where a folder has no lock and will get none."""
    return not (folder / LOCK).exists() and time.time() - folder.stat().st_mtime > _SETTLING_S


__all__ = [
    "LOCK",
    "Staging",
    "abandoned",
    "exchange",
    "new",
    "remove_abandoned",
    "sync_folder",
    "unused",
]
