"""`demo build OUT`: trains the built-in family from scratch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from merging.commands.console import command, print_json, say, status
from merging.system.interrupts import raised_by_signals
from merging.trial.commands import quiet_transformers


def declare(commands: Any) -> None:
    """Adds the command to the parser's."""
    demo = commands.add_parser("demo", help="the built-in family")
    demo_commands = demo.add_subparsers(dest="demo_command", required=True, metavar="COMMAND")
    parser = command(demo_commands, "build", run, "train the built-in family from scratch")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Trains and writes the five models."""
    from merging.demo.build import build
    from merging.errors import OutputExists

    def progress(phase: str, share: float) -> None:
        status(f"{share:4.0%} {phase}")

    quiet_transformers()
    raised_by_signals()
    try:
        timings = build(args.out, seed=args.seed, progress=progress)
    except FileExistsError as error:
        raise OutputExists(f"{args.out} exists and is not empty; give another name") from error
    status("")
    if args.json:
        print_json({"out": str(args.out), **timings})
    else:
        say(str(args.out))
    return 0
