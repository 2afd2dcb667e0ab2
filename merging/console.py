"""What the commands say on stderr while they work, and the types of their options."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

_TELL_S = 10.0  # between two lines of progress where stderr is no terminal


class Bar:
    """Progress on stderr: one line redrawn in place on a terminal, one every 10 s elsewhere."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _TELL_S

    def __call__(self, progress: Any) -> None:
        share = progress.done / progress.total if progress.total else 1.0
        eta = f", {progress.eta_s:.0f} s left" if progress.eta_s is not None else ""
        text = f"{share:4.0%} {progress.phase} {progress.tensor}{eta}"
        if sys.stderr.isatty():
            status(text)
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + _TELL_S
            print(text, file=sys.stderr, flush=True)


def status(text: str) -> None:
    """Redraws one line on stderr, where that is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text[:110]}")
        sys.stderr.flush()


def positive(text: str) -> int:
    """An option's whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def print_json(document: Any) -> None:
    """Prints one JSON object on stdout."""
    print(json.dumps(document))
