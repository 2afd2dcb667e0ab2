"""Locks whose waiting can be ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from merging.errors import Cancelled

_LOOK_S = 0.02  # between two looks at whether the lock is still wanted


@contextmanager
def held(lock: threading.Lock, stop: threading.Event | None) -> Iterator[None]:
    """Holds a lock. Raises Cancelled where `stop` is set while another holds it."""
    while not lock.acquire(timeout=_LOOK_S):
        if stop is not None and stop.is_set():
            raise Cancelled("stopped")
    try:
        yield
    finally:
        lock.release()
