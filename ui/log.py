"""What the program says, bounded: no visitor can fill a disk with what requests made it log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TextIO

BURST = 256 * 1024  # characters at once: some thirty tracebacks
PER_S = 256  # and this many a second from then on: 22 MB a day


class Allowance:
    """How much may still be written: full at first, filled up again as time goes by."""

    def __init__(
        self, most: int = BURST, per_s: float = PER_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._per_s, self._now = most, per_s, now
        self._room, self._at = float(most), now()

    def take(self, amount: int) -> int:
        """Takes what is wanted, or the whole rest where less is left."""
        now = self._now()
        self._room = min(self._most, self._room + (now - self._at) * self._per_s)
        self._at = now
        taken = min(amount, int(self._room))
        self._room -= taken
        return taken


class BoundedLog:
    """A text stream that leaves out what goes beyond an allowance, and says how much that was."""

    def __init__(self, stream: TextIO, allowance: Allowance) -> None:
        self._stream = stream
        self._allowance = allowance
        self._lost = 0
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Writes the text, or the part of it that is allowed; counts all of it as written."""
        with self._lock:
            taken = self._allowance.take(len(text))
            if taken and self._lost:
                self._stream.write(f"\n[{self._lost} characters were left out here]\n")
                self._lost = 0
            self._stream.write(text[:taken])
            self._lost += len(text) - taken
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
