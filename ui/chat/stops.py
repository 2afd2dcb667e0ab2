"""Which answers are being written for which page, and what ends them."""

from __future__ import annotations

import threading
from collections import OrderedDict

_PAGES = 256
_RUNS = 256  # of a page; one that was stopped before it began is among them


class Stops:
    """What ends each answer, by page and by the page's name for it. Safe between threads."""

    def __init__(self) -> None:
        self._pages: OrderedDict[str, OrderedDict[str, threading.Event]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, page: str, run: str) -> threading.Event:
        """What is set when an answer is to end, which may be before it began."""
        with self._lock:
            runs = self._pages.setdefault(page, OrderedDict())
            self._pages.move_to_end(page)
            while len(self._pages) > _PAGES:
                _end(self._pages.popitem(last=False)[1])
            stop = runs.setdefault(run, threading.Event())
            while len(runs) > _RUNS:
                runs.popitem(last=False)[1].set()
            return stop

    def over(self, page: str, run: str) -> None:
        """An answer is written."""
        with self._lock:
            self._pages.get(page, OrderedDict()).pop(run, None)

    def leave(self, page: str) -> None:
        """Ends all answers of a page."""
        with self._lock:
            _end(self._pages.pop(page, OrderedDict()))


def _end(runs: OrderedDict[str, threading.Event]) -> None:
    for stop in runs.values():
        stop.set()
