"""The command line: reads the arguments, runs one command, says how it ended.

Exit status: 0 done, 2 the user's input is wrong or the machine does not allow it (one line, no
traceback), 130 interrupted, 1 a defect of ours. torch is imported only by the commands that need
it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from merging.commands import check, console, demo, inspect, materialise, merge, trial
from merging.errors import Cancelled, MergeError
from merging.system import interrupts, shortage

COMMANDS = (merge, check, materialise, inspect, trial, demo)


def main(
    arguments: list[str] | None = None,
    *,
    name: str = "python -m merging",
    also: Mapping[str, str] | None = None,
) -> int:
    """Runs one command; returns the exit status.

    Args:
        name: what the program is called in its help.
        also: commands that the program has besides, with a line on each.
    """
    console.write_whatever_comes()
    args = argparse.Namespace()
    try:
        shortage.check_limit()
        args = _parser(name, also or {}).parse_args(_spelled_out(arguments))
        status = args.run(args)
        console.flush()
        return status
    except (Cancelled, KeyboardInterrupt):
        resumes = getattr(args, "resume", False)
        remainder = (
            "what is done is kept: the same command goes on"
            if resumes
            else "nothing was left behind"
        )
        console.tell(f"interrupted; {remainder}")
        return interrupts.STATUS
    except MergeError as error:
        console.tell("error", error)
        return console.USER_ERROR
    except BrokenPipeError:
        # the reader of our output went away: not a defect, and nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        reason = shortage.in_words(error)
        if reason is None:
            raise
        console.tell("error", reason)
        return console.USER_ERROR


def _spelled_out(arguments: list[str] | None) -> list[str]:
    """The arguments with `--strict` as `--strict=all`: argparse would take what follows it for the
    kinds that may be given."""
    argv = sys.argv[1:] if arguments is None else arguments
    return ["--strict=all" if argument == "--strict" else argument for argument in argv]


class _OneLine(argparse.ArgumentParser):
    """Says what is wrong with a command in one line."""

    def error(self, message: str) -> Any:
        """As ArgumentParser."""
        console.tell("error", f"{message}; see {self.prog} --help")
        self.exit(console.USER_ERROR)


def _parser(name: str, also: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _OneLine(prog=name, description="Merge fine-tuned models of one base.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, line in also.items():
        commands.add_parser(command, help=line, add_help=False)
    for module in COMMANDS:
        module.declare(commands)
    return parser
