"""Memory that a pass over models has freed, handed back to the system.

The C library keeps what threads free for their next request, up to all that a pass held at once: a
server that has read one large family would hold that for good. Beside that it learns: once large
arrays were freed, the next ones lie among small things, whose pages cannot be handed back.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's numbers for them
_LARGE_BYTES, _SPARE_BYTES = 4 << 20, 16 << 20


def keep_large_apart() -> None:
    """From now on, what has 4 MiB and more lies in pages of its own: freed, it is the system's.

    Of the rest up to 16 MiB that are free stay at hand until `handed_back`, where glibc, once told
    the first, would give them back and ask for them again all the time.
    """
    if (library := _library()) is not None:
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _SPARE_BYTES)


@contextmanager
def handed_back() -> Iterator[None]:
    """Hands back what is free once the block is over, however it ends."""
    try:
        yield
    finally:
        if (library := _library()) is not None:
            library.malloc_trim(0)


@functools.cache
def _library() -> ctypes.CDLL | None:
    """glibc; None where there is another C library."""
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "malloc_trim") else None
    except (OSError, TypeError):
        return None
