"""Which family each page is waiting to see: a newer choice ends the reading of an older one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(eq=False)
class Reading:
    """One reading of a family.

    Attributes:
        over: set when it should end.
        replaced: it ended because the page chose again: what it found is not wanted.
    """

    over: threading.Event = field(default_factory=threading.Event)
    replaced: bool = False


class Readings:
    """The reading that is going on for each page. Safe to share between threads."""

    def __init__(self) -> None:
        self._current: dict[str, Reading] = {}
        self._lock = threading.Lock()

    def begin(self, page: str) -> Reading:
        """A new reading; the page's older one ends."""
        reading = Reading()
        with self._lock:
            older = self._current.get(page)
            self._current[page] = reading
        if older is not None:
            older.replaced = True
            older.over.set()
        return reading

    def end(self, page: str, reading: Reading) -> None:
        """A reading is finished, or its page was closed."""
        reading.over.set()
        with self._lock:
            if self._current.get(page) is reading:
                del self._current[page]

    def stop(self, page: str) -> None:
        """Ends the page's reading, if there is one."""
        with self._lock:
            reading = self._current.get(page)
        if reading is not None:
            reading.over.set()
