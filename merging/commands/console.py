"""What the commands share: how they are declared, what they say, and the types of options."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from merging.errors import OutputLost, one_line

USER_ERROR = 2
_TELL_S = 10.0  # between two lines of progress where stderr is no terminal
_CLEAR = "\r\033[K"

Run = Callable[[argparse.Namespace], int]


def command(commands: Any, name: str, run: Run, help_: str) -> argparse.ArgumentParser:
    """Adds a command that `run` answers; returns its parser, to which its arguments are added."""
    parser = commands.add_parser(name, help=help_, description=help_)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def write_whatever_comes() -> None:
    """A name that the terminal's encoding lacks is written with escapes, not refused."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(*lines: str) -> None:
    """Lines of the result, on stdout.

    Raises:
        OutputLost: they cannot be written there (BrokenPipeError where nobody reads them).
    """
    try:
        print(*lines, sep="\n")
    except OSError as error:
        raise _lost(error) from error
    flush()


def flush() -> None:
    """Sees that what was said is out. Raises as `say`."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        raise _lost(error) from error


def _lost(error: OSError) -> Exception:
    if isinstance(error, BrokenPipeError):
        return error
    # what still waits to be written would be tried again, and complained of, at the end
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OutputLost(f"stdout cannot be written ({(error.strerror or str(error)).lower()})")


def tell(kind: str, text: object = "") -> None:
    """One line on stderr: "error: ...", "note: ...". Work never stops because it cannot be read."""
    with contextlib.suppress(OSError, AttributeError):  # the latter: there is no stderr
        line = one_line(f"{kind}: {text}" if text != "" else kind)
        sys.stderr.write(f"{_CLEAR if sys.stderr.isatty() else ''}{line}\n")
        sys.stderr.flush()


class Ticker:
    """Says on stderr how far the work is: one line redrawn in place on a terminal, one every 10 s
    elsewhere."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _TELL_S

    def __call__(self, text: str) -> None:
        if is_terminal():
            status(text)
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + _TELL_S
            tell(text)


def is_terminal() -> bool:
    """True where somebody watches stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


class Bar:
    """A merge's or a scan's progress on stderr, as `Ticker`."""

    def __init__(self) -> None:
        self._tell = Ticker()

    def __call__(self, progress: Any) -> None:
        share = progress.done / progress.total if progress.total else 1.0
        eta = f", {progress.eta_s:.0f} s left" if progress.eta_s is not None else ""
        self._tell(f"{share:4.0%} {progress.phase} {progress.tensor}{eta}")


def status(text: str) -> None:
    """Redraws one line on stderr, where that is a terminal; "" takes it away."""
    if is_terminal():
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{_CLEAR}{one_line(text)[:110]}")
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
    """One JSON object on stdout. Raises as `say`."""
    say(json.dumps(document))
