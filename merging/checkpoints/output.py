"""Where a model may be written, and what the system's refusals mean for whoever asked.

A model replaces nothing that is no model: no device, socket, FIFO or link to nothing, whoever runs
the program, and an existing model only where that was asked for.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from merging.checkpoints.folders import inner_folders
from merging.errors import NotEnoughSpace, OutputExists
from merging.system.documents import kind_of

_LONGEST_NAME = 200  # bytes; leaves room for the hidden folder's marks within a file system's 255
_FULL = (errno.ENOSPC, errno.EDQUOT)


def located(out: Path) -> Path:
    """The absolute path of an output. Raises OutputExists where the current folder is gone."""
    try:
        return Path(out).absolute()
    except FileNotFoundError:
        raise OutputExists(
            f"{out}: the folder you are in has been removed; go to another one"
        ) from None


def check_output(out: Path, overwrite: bool) -> None:
    """Refuses an absolute path where a model cannot be written or would destroy something unasked.

    Raises:
        OutputExists: something is there, or no folder can be.
        NotEnoughSpace: it cannot be written.
    """
    if len(os.fsencode(out.name)) > _LONGEST_NAME:
        raise OutputExists(f"{out.name[:40]}...: the name is too long; give a shorter one")
    try:
        status = os.lstat(out)
    except (FileNotFoundError, NotADirectoryError):
        _check_parent(out)
        return
    except (OSError, ValueError) as error:
        raise OutputExists(f"{out}: {_reason(error)}; give another name") from None
    if stat.S_ISLNK(status.st_mode):
        _check_link(out, overwrite)
    elif not stat.S_ISDIR(status.st_mode):
        raise OutputExists(f"{out} is {kind_of(status.st_mode)}; give a folder")
    _check_folder(out, overwrite)
    _check_parent(out)


def in_words(error: BaseException, out: Path) -> BaseException:
    """What an OSError met while `out` was written means for its user; other errors unchanged."""
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
        return error  # a pipe is not the output: whoever read our messages went away
    if error.errno in _FULL:
        free = shutil.disk_usage(_existing(out)).free
        return NotEnoughSpace(
            f"{out}: the disk is full ({free / 1e9:.2f} GB free); free space or choose another disk"
        )
    if error.errno == errno.EFBIG:
        return NotEnoughSpace(
            f"{out}: files may not grow so large here (a limit of the disk, or of ulimit -f); give "
            "--shard-size, or choose another disk"
        )
    if error.errno == errno.ENOENT:
        return NotEnoughSpace(
            f"{out}: the folder that it is written in has been removed meanwhile; start again"
        )
    return NotEnoughSpace(f"{out}: cannot be written ({_reason(error)}); choose another folder")


def _check_link(out: Path, overwrite: bool) -> None:
    try:
        mode = os.stat(out).st_mode
    except OSError as error:
        raise OutputExists(
            f"{out} is a link that leads nowhere ({_reason(error)}); remove it, or give a folder"
        ) from None
    if not stat.S_ISDIR(mode):
        raise OutputExists(f"{out} is a link to {kind_of(mode)}; give a folder")
    if not overwrite:
        raise OutputExists(
            f"{out} is a link to {out.resolve()}; give that folder, or --overwrite to replace the "
            "link alone"
        )


def _check_folder(out: Path, overwrite: bool) -> None:
    for place, words in _places():
        if _is_same(out, place):
            raise OutputExists(f"{out} is {words}; give the name of a new one")
    if os.path.ismount(out):
        raise OutputExists(f"{out} is where a disk is mounted; give the name of a folder in it")
    try:
        inside = sorted(out.iterdir())
        folders = [path.name for path in inside if path.is_dir()]
    except OSError as error:
        raise OutputExists(f"{out}: cannot be listed ({_reason(error)})") from None
    if not inside:
        return
    if not overwrite:
        raise OutputExists(f"{out} exists and is not empty; give another name or --overwrite")
    if not (out / "config.json").is_file():
        raise OutputExists(f"{out} is not a model folder; --overwrite replaces models only")
    own = _own_folders(out)
    foreign = [name for name in folders if name not in own]
    if foreign:
        raise OutputExists(
            f"{out} holds the folder {foreign[0]}, which --overwrite would delete; move it, or "
            "give another name"
        )


def _places() -> list[tuple[str, str]]:
    """Folders that are never a model, and what to call them."""
    places = [("/", "the root of the file system"), (os.path.expanduser("~"), "your home folder")]
    try:
        return [(os.getcwd(), "the folder you are in"), *places]
    except FileNotFoundError:
        return places


def _is_same(out: Path, place: str) -> bool:
    try:
        return out.samefile(place)
    except OSError:
        return False


def _own_folders(model: Path) -> set[str]:
    """Folders inside a model's that are part of it: they hold files alone, and it names them."""
    return {name for name in inner_folders(model) if _holds_files_alone(model / name)}


def _holds_files_alone(folder: Path) -> bool:
    try:
        return all(path.is_file() for path in folder.iterdir())
    except OSError:
        return False


def _check_parent(out: Path) -> None:
    """Raises where no folder can be made beside `out`."""
    parent = out.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise OutputExists(f"{out} cannot be made: {parent} is no folder; give another name")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise NotEnoughSpace(f"{out}: {parent} cannot be written by you; choose another folder")
    if os.statvfs(parent).f_blocks == 0:  # /proc and its like
        raise NotEnoughSpace(f"{out}: {parent} is on no disk; choose another folder")


def _existing(path: Path) -> Path:
    """The nearest folder that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "no file has such a name"


__all__ = ["check_output", "in_words", "located"]
