"""Pieces of files as memory: what the loops read without the copy that reading makes.

Mapped memory costs no copy, but a file that shrinks meanwhile would end the process. The library
watches for that: zeros stand for what is gone, and `lost` tells the thread that met it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from merging import kernels


class Window:
    """Bytes of a file, mapped as long as the object lives.

    Args:
        offset, size: which bytes, size >= 1.
        sparse: only some of them will be read: the rest is not brought in.

    Attributes:
        address: of the first byte.

    Raises:
        OSError: the file cannot be opened, or its file system cannot map.
    """

    __slots__ = ("_size", "_start", "_unmap", "address")

    def __init__(self, file: Path, offset: int, size: int, *, sparse: bool = False) -> None:
        library = kernels.library()
        if library is None:
            raise OSError("the loops are not available")
        self._start, self._unmap = 0, library.amalgam_unmap
        skipped = offset % mmap.ALLOCATIONGRANULARITY
        self._size = skipped + size
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            start = library.amalgam_map(handle, offset - skipped, self._size, sparse)
        finally:
            os.close(handle)
        if not start:
            raise OSError(f"{file} cannot be mapped")
        self._start = start
        self.address: int = start + skipped

    def __del__(self) -> None:
        if getattr(self, "_start", 0):
            self._unmap(self._start, self._size)


def lost() -> bool:
    """True where this thread met bytes that are gone since it last asked."""
    library = kernels.library()
    return library is not None and bool(library.amalgam_lost())
