"""The command line: `python -m merging COMMAND`.

Exit status: 0 done, 2 the user's input is wrong (one line, no traceback), 130 interrupted, 1 a
defect of ours. torch is imported only by the commands that need it.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from merging.commands import check, demo, inspect, merge, trial
from merging.console import INTERRUPTED, USER_ERROR

COMMANDS = (merge, check, inspect, trial, demo)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    args = _parser().parse_args(argv)
    from merging.errors import Cancelled, MergeError

    try:
        return args.run(args)
    except (Cancelled, KeyboardInterrupt):
        kept = getattr(args, "resume", False)
        left = (
            "what is done is kept: the same command goes on" if kept else "nothing was left behind"
        )
        print(f"interrupted; {left}", file=sys.stderr)
        return INTERRUPTED
    except MergeError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # the reader of our output went away: not a defect, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _OneLine(argparse.ArgumentParser):
    """Says what is wrong with a command in one line."""

    def error(self, message: str) -> Any:
        """As ArgumentParser."""
        self.exit(USER_ERROR, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLine(prog="python -m merging", description="Merge fine-tuned models of one base.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for one in COMMANDS:
        one.declare(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
