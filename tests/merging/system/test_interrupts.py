"""Interrupts in real processes: status 130 and one line, from the first line of a command on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_work_begins_an_interrupt_ends_the_process_at_once(number: signal.Signals) -> None:
    """Here in the middle of an import, whose own handling of errors must not swallow it."""
    done = run(
        "import os\nfrom merging.system import interrupts\ninterrupts.end_at_once()\n"
        f"try:\n    os.kill(os.getpid(), {int(number)})\nexcept BaseException:\n    pass\n"
        "print('went on')"
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted; nothing was left behind\n"


@pytest.mark.parametrize("command", ["merging.__main__", "amalgam"])
def test_the_handler_is_there_before_anything_is_imported_that_takes_time(command: str) -> None:
    heavy = ("argparse", "json", "re", "numpy", "torch", "merging.command_line", "merging.errors")
    done = run(f"import sys, {command}\nprint([m for m in {heavy} if m in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_work_can_ask_or_be_told() -> None:
    done = run(
        "import os, signal\nfrom merging.system import interrupts\n"
        "cancel = interrupts.cancelled_by_signals()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nassert cancel.is_set()\n"
        "interrupts.raised_by_signals()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGTERM)\n    print('not raised')\n"
        "except KeyboardInterrupt:\n    print('raised')\n"
    )
    assert (done.returncode, done.stdout) == (0, "raised\n"), done.stderr
