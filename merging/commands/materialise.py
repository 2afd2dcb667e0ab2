"""`materialise CONTAINER TASK OUT`: one task of a container as an ordinary model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from merging.commands.console import Bar, command, print_json, say, size, tell
from merging.errors import one_line
from merging.system.interrupts import cancelled_by_signals


def declare(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = command(commands, "materialise", run, "make an ordinary model of a container's task")
    parser.add_argument("container", type=Path, help="what a merge with container: true wrote")
    parser.add_argument("task", help="a task's name, or its number from 1")
    parser.add_argument("out", type=Path, help="folder to write; appears complete or not at all")
    parser.add_argument("--base", help="the base, where it is no longer where the recipe says")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.add_argument(
        "--shard-size", type=size, default=None, metavar="SIZE", help="upper bound of a file: 5GB"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the model; prints the folder and the fingerprint."""
    from merging.checkpoints.writer import SHARD_BYTES
    from merging.run.materialise import materialise

    result = materialise(
        args.container,
        args.task,
        args.out,
        base=args.base,
        overwrite=args.overwrite,
        shard_bytes=args.shard_size or SHARD_BYTES,
        progress=Bar(),
        cancel=cancelled_by_signals(),
    )
    for note in map(one_line, result.notes):
        tell("note", note)
    if args.json:
        print_json(
            {
                "out": str(result.out),
                "task": result.task,
                "fingerprint": result.fingerprint,
                "seconds": round(result.seconds, 3),
                "notes": list(result.notes),
            }
        )
    else:
        say(str(result.out), result.fingerprint)
    return 0
