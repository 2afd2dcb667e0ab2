"""`check RECIPE`: every problem that can be found before anything is computed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from merging.commands.console import USER_ERROR, command, print_json, say
from merging.kernels import cache_folder


def declare(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = command(commands, "check", run, "preflight: every problem, from headers alone")
    parser.add_argument("recipe", type=Path, help="a YAML file")
    parser.add_argument("--out", type=Path, default=None, help="also check this output folder")
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache_folder() / "sketches",
        help="what the workbench's scans kept: tells how much will be kept of what is asked for",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the findings; 0 where a merge would run."""
    from merging import recipe as recipes
    from merging.errors import RecipeError
    from merging.kinship import Problem
    from merging.run.preflight import Report, check

    try:
        report = check(recipes.load(args.recipe), args.out, sketches=args.cache)
    except RecipeError as error:
        if not args.json:
            raise
        report = Report((Problem("error", "recipe", error.reason, line=error.line),), (), 0, 0)
    if args.json:
        print_json(
            {
                "ok": report.ok,
                "problems": [vars(problem) for problem in report.problems],
                "disk_bytes": report.disk_bytes,
                "memory_bytes": report.memory_bytes,
                "tensors": [
                    {"name": e.name, "status": e.status, "reason": e.reason} for e in report.account
                ],
            }
        )
    else:
        for problem in report.problems:
            say(f"{problem.severity}: {problem.sentence}")
        if not report.account:
            say("not ready: no family to merge")
            return USER_ERROR
        merged = sum(entry.status == "merged" for entry in report.account)
        say(
            f"{'ready' if report.ok else 'not ready'}: {merged} of {len(report.account)} tensors "
            f"merged, {report.disk_bytes / 1e6:.1f} MB on disk, about "
            f"{report.memory_bytes / 1e6:.0f} MB of memory"
        )
    return 0 if report.ok else USER_ERROR
