"""Work that lets others go first: answers of large models keep no page waiting."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar, cast

T = TypeVar("T")
_NICER = 10  # steps of priority: a tenth of the share of a processor that others get
_END = object()


def aside(items: Iterator[T]) -> Iterator[T]:
    """The same items, made by a thread of low priority.

    Where the caller leaves early, the thread ends at the next item.
    """
    made: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()
    gone = threading.Event()

    def make() -> None:
        let_others_first()
        try:
            for item in items:
                made.put((item, None))
                if gone.is_set():
                    return
            made.put((_END, None))
        except BaseException as error:  # whoever waits is told
            made.put((_END, error))

    threading.Thread(target=make, name="aside", daemon=True).start()
    try:
        while (message := made.get())[0] is not _END:
            yield cast(T, message[0])
        if message[1] is not None:
            raise message[1]
    finally:
        gone.set()


def let_others_first() -> None:
    """Lowers the priority of this thread and of those that it starts. Linux alone can do that."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        with suppress(OSError):
            own = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(19, own + _NICER))
