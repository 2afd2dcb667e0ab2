"""Memory that a pass over models has freed, handed back to the system.

The C library keeps what threads free for their next request, up to all that a pass held at once: a
server that has read one large family would hold that for good.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handed_back() -> Iterator[None]:
    """Hands back what is free once the block is over, however it ends."""
    try:
        yield
    finally:
        if (trim := _trim()) is not None:
            trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim; None where there is another C library."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
