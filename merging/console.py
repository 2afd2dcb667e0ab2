"""What the commands share: how they are declared and interrupted, what they say while they work,
and the types of their options."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

USER_ERROR, INTERRUPTED = 2, 130
_TELL_S = 10.0  # between two lines of progress where stderr is no terminal


Run = Callable[[argparse.Namespace], int]


def command(commands: Any, name: str, run: Run, help_: str) -> argparse.ArgumentParser:
    """Adds a command that `run` answers; returns its parser, to which its arguments are added."""
    parser = commands.add_parser(name, help=help_, description=help_)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def cancelled_by_signals() -> threading.Event:
    """An event that an interrupt sets from now on: the work ends at its next look."""
    cancel = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: cancel.set())
    return cancel


def interrupt(*_: Any) -> None:
    """A signal's handler: the work ends where it is, and cleans up."""
    raise KeyboardInterrupt


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


def size(text: str) -> int:
    """Bytes of "500MB", "5GB", "5000000". Raises ArgumentTypeError."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}
    number, scale = text, 1
    for unit, factor in units.items():
        if text.upper().endswith(unit):
            number, scale = text[: -len(unit)], factor
            break
    try:
        value = int(float(number) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 5GB") from None
    if value <= 0:
        raise argparse.ArgumentTypeError("the size must be above 0")
    return value


def positive(text: str) -> int:
    """An option's whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def print_json(document: Any) -> None:
    """Prints one JSON object on stdout."""
    print(json.dumps(document))
