"""Small files that are read whole: recipes, configs, indices, settings of tokenizers.

Whatever stands at a path that a person gave (a FIFO, a device, a socket, a file of ten gigabytes,
a hundred thousand brackets), the answer comes at once and in little memory: its text, or an error
of one line that begins with the path. `read_text` is for recipes and prompts, `read_json` and
`read_object` for JSON; they raise `BadFile`, whose text a caller may take into an error of its own
kind.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from merging.errors import BadFile

TEXT_BYTES = 8_000_000
OBJECT_BYTES = 32_000_000  # the index of a model of 300,000 tensors
MOST_VALUES = 400_000  # the same; a value of JSON takes up to a hundred times its text in memory
MOST_LEVELS = 64  # of nesting
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
_SURROGATE = re.compile("[\ud800-\udfff]")


def kind_of(mode: int) -> str:
    """What a file of this mode (`os.stat`) is in words: "a FIFO". "a file" for a regular one."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A regular file opened for reading: its descriptor. What is no such file is not waited for.

    Raises:
        BadFile: nothing is there, it is no regular file, or it may not be read.
    """
    try:
        _check_regular(path, os.stat(path))  # some devices act when they are opened
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: {_reason(error)}") from None
    try:
        _check_regular(path, os.fstat(handle))  # it may be another one by now
        yield handle
    finally:
        os.close(handle)


def read_bytes(path: Path, most: int = TEXT_BYTES) -> bytes:
    """A regular file's bytes.

    Args:
        most: bytes that it may have.

    Raises:
        BadFile: it cannot be read, or is larger.
    """
    with opened(path) as handle:
        try:
            size = os.fstat(handle).st_size
            if size <= most:  # what claims to be empty (as files of /proc do) may go on and on
                with os.fdopen(handle, "rb", closefd=False) as file:
                    data = file.read(most + 1)
                if data is None:  # the system would have to be waited for, as with /proc/kmsg
                    raise BadFile(f"{path}: is no file that can be read at once")
                size = len(data)
        except OSError as error:
            raise BadFile(f"{path}: {_reason(error)}") from None
    if size > most:
        raise BadFile(f"{path}: has more than {most / 1e6:g} MB, too much for such a file")
    return data


def read_text(path: Path, most: int = TEXT_BYTES) -> str:
    """A regular file's text, which is UTF-8 (with or without a byte-order mark).

    Args:
        most: bytes that it may have.

    Raises:
        BadFile: it cannot be read, is larger, or is no such text.
    """
    data = read_bytes(path, most)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: is not UTF-8 text (byte {error.start})") from None


def read_json(path: Path, most: int = OBJECT_BYTES) -> Any:
    """The JSON value that a file holds.

    Args:
        most: bytes that it may have.

    Raises:
        BadFile: as `read_text`; or it is not JSON, nested deeper than MOST_LEVELS, has more than
            MOST_VALUES values, or a text that is no Unicode.
    """
    text = read_text(path, most)
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise BadFile(f"{path}: holds more than {MOST_VALUES:,} values")
    try:
        value = json.loads(text)
    except RecursionError:
        raise BadFile(f"{path}: is nested deeper than {MOST_LEVELS} levels") from None
    except ValueError as error:
        raise BadFile(f"{path}: is not JSON ({error})") from None
    _check_values(path, value, has_escapes="\\u" in text)
    return value


def read_object(path: Path, most: int = OBJECT_BYTES) -> dict[str, Any]:
    """As `read_json`, of a file that holds an object. Raises BadFile: it holds something else."""
    value = read_json(path, most)
    if not isinstance(value, dict):
        raise BadFile(f"{path}: is not a JSON object")
    return value


def _check_values(path: Path, value: Any, *, has_escapes: bool) -> None:
    """Raises BadFile where values nest too deep, or hold text that cannot be written again."""
    values = [value]
    for _ in range(MOST_LEVELS + 1):
        if has_escapes and any(
            isinstance(container, str) and _SURROGATE.search(container) for container in values
        ):
            raise BadFile(f"{path}: holds half of a character (a lone surrogate)")
        outer = [container for container in values if isinstance(container, dict | list)]
        if not outer:
            return
        values = []
        for container in outer:
            values += (
                [*container, *container.values()] if isinstance(container, dict) else container
            )
    raise BadFile(f"{path}: is nested deeper than {MOST_LEVELS} levels")


def _check_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadFile(f"{path}: is {kind_of(status.st_mode)}, not a file")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "no file has such a name"  # it holds a zero byte


__all__ = [
    "MOST_LEVELS",
    "MOST_VALUES",
    "OBJECT_BYTES",
    "TEXT_BYTES",
    "kind_of",
    "opened",
    "read_bytes",
    "read_json",
    "read_object",
    "read_text",
]
