"""SIGINT and SIGTERM: a command that is interrupted ends with status 130, whenever that is.

What runs before a command's work begins (the interpreter, imports) has nothing to clean up: it
ends at once. A command whose work leaves something behind takes the signals over.

This is the first module that a command imports: what it imports in turn is little.
"""

from __future__ import annotations

import os
import signal
import threading

STATUS = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_at_once() -> None:
    """From now on an interrupt ends the process where it is; nothing may have been begun."""
    for number in _SIGNALS:
        signal.signal(number, _end)


def cancelled_by_signals() -> threading.Event:
    """An event that an interrupt sets from now on: the work ends at its next look."""
    cancel = threading.Event()
    for number in _SIGNALS:
        signal.signal(number, lambda *_: cancel.set())
    return cancel


def raised_by_signals() -> None:
    """From now on an interrupt raises KeyboardInterrupt: the work ends there, and cleans up."""
    for number in _SIGNALS:
        signal.signal(number, _raise)


def _end(*_: object) -> None:
    os.write(2, b"interrupted; nothing was left behind\n")
    os._exit(STATUS)  # imports that are under way would take an exception for their own


def _raise(*_: object) -> None:
    raise KeyboardInterrupt
