"""Files as memory, piece by piece: what the loops read without the copy that reading makes; and
blocks of files in a row.

Mapped memory costs no copy, but a file that shrinks meanwhile would end the process. The library
watches for that: zeros stand for what is gone, and `lost` tells the thread that met it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from merging import kernels


class Mapping:
    """A whole file as memory, as long as the object lives. Only windows of it are brought in:
    threads that map and unmap pieces of their own would wait for each other in the system.

    Attributes:
        size: its bytes.
        start: address of the first.
        shown: bytes that windows have shown so far.

    Raises:
        OSError: the file cannot be opened, or its file system cannot map.
    """

    __slots__ = ("_unmap", "shown", "size", "start")

    def __init__(self, file: Path) -> None:
        self.start = self.shown = 0
        library = kernels.library()
        if library is None:
            raise OSError("the loops are not available")
        self._unmap = library.amalgam_unmap
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.size = os.fstat(handle).st_size
            self.start = library.amalgam_map(handle, self.size) or 0
        finally:
            os.close(handle)
        if not self.start:
            raise OSError(f"{file} cannot be mapped")

    def __del__(self) -> None:
        if self.start:
            self._unmap(self.start, self.size)


class Window:
    """Bytes of a mapped file, in memory as long as the object lives.

    Args:
        offset, size: which bytes.

    Attributes:
        address: of the first byte.

    Raises:
        OSError: the file is shorter.
    """

    __slots__ = ("_drop", "_mapping", "_size", "address")

    def __init__(self, mapping: Mapping, offset: int, size: int) -> None:
        self._size = 0
        library = kernels.library()
        if library is None or offset + size > mapping.size:
            raise OSError("the file is shorter")
        self._mapping, self._drop = mapping, library.amalgam_drop
        mapping.shown += size
        self.address: int = mapping.start + offset
        library.amalgam_bring(self.address, size)
        self._size = size

    def __del__(self) -> None:
        if self._size:
            self._drop(self.address, self._size)


def gather(file: Path, offset: int, step: int, size: int, count: int) -> tuple[np.ndarray, int]:
    """Blocks of a file: `count` of `size` bytes, each `step` bytes after the one before.

    Returns:
        (count, size) uint8, and how many of the blocks could be read.

    Raises:
        OSError: the file cannot be opened.
    """
    out = np.empty((count, size), dtype=np.uint8)
    library = kernels.library()
    if library is None:
        return out, 0
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        blocks = library.amalgam_gather(handle, offset, step, size, count, out.ctypes.data)
    finally:
        os.close(handle)
    return out, blocks


def lost() -> bool:
    """True where this thread met bytes that are gone since it last asked."""
    library = kernels.library()
    return library is not None and bool(library.amalgam_lost())
