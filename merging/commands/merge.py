"""`merge RECIPE OUT`: runs a recipe and writes the merged model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from merging.console import Bar, cancelled_by_signals, command, print_json, size


def declare(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = command(commands, "merge", run, "run a recipe and write the merged model")
    parser.add_argument("recipe", type=Path, help="a YAML file")
    parser.add_argument("out", type=Path, help="folder to write; appears complete or not at all")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda", "mps"),
        help="auto: the CPU's loops where they run, else a GPU that is there",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.add_argument(
        "--resume", action="store_true",
        help="go on where a merge of the same recipe was interrupted; keep what is done",
    )  # fmt: skip
    parser.add_argument(
        "--strict", action="store_true", help="refuse what the preflight merely warns of"
    )
    parser.add_argument(
        "--shard-size", type=size, default=None, metavar="SIZE", help="upper bound of a file: 5GB"
    )


def run(args: argparse.Namespace) -> int:
    """Merges; prints the folder, the account and the fingerprint."""
    from merging import recipe as recipes
    from merging.checkpoints.writer import SHARD_BYTES
    from merging.merge import merge

    recipe = recipes.load(args.recipe)
    for note in recipe.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.strict:
        _refuse_warnings(recipe)
    cancel = cancelled_by_signals()
    result = merge(
        recipe,
        args.out,
        device=args.device,
        overwrite=args.overwrite,
        shard_bytes=args.shard_size or SHARD_BYTES,
        resume=args.resume,
        progress=Bar(),
        cancel=cancel,
    )
    tensors: dict[str, list[Any]] = {"merged": [], "copied": [], "left_out": []}
    for entry in result.account:
        tensors[entry.status].append({"name": entry.name, "reason": entry.reason})
    document = {
        "out": str(result.out),
        "fingerprint": result.fingerprint,
        "seconds": round(result.seconds, 3),
        "peak_bytes": result.peak_bytes,
        "device": result.device,
        "engine": result.engine,
        "tensors": tensors,
        "notes": list(result.notes),
        "drift": {str(layer): drift for layer, drift in result.drift.items()},
    }
    for note in result.notes[len(recipe.notes) :]:
        print(f"note: {note}", file=sys.stderr)
    _warn([entry for entry in result.account if entry.status == "copied"])
    if args.json:
        print_json(document)
        return 0
    print(f"{result.out}")
    print(
        f"{len(tensors['merged'])} tensors merged, {len(tensors['copied'])} copied, "
        f"{len(tensors['left_out'])} left out, in {result.seconds:.2f} s on {result.device}, "
        f"peak {result.peak_bytes / 1e6:.0f} MB"
    )
    for status in ("merged", "copied", "left_out"):
        for line in tensors[status]:
            if line["reason"]:
                print(f"{status.replace('_', ' ')}: {line['name']}: {line['reason']}")
    print(result.fingerprint)
    return 0


def _refuse_warnings(recipe: Any) -> None:
    """Raises RecipeError where the preflight finds anything at all."""
    from merging.errors import RecipeError
    from merging.merge import check

    found = check(recipe).problems
    if found:
        more = f" (and {len(found) - 1} more; see check)" if len(found) > 1 else ""
        raise RecipeError(f"--strict: {found[0].where}: {found[0].message}{more}")


def _warn(copied: list[Any]) -> None:
    """Says on stderr that tensors came from the base alone: a model may lack or differ in them."""
    unmerged = [entry for entry in copied if entry.is_parameter]
    if not unmerged:
        return
    first, more = unmerged[0], f", and {len(unmerged) - 1} more" if len(unmerged) > 1 else ""
    print(
        f"warning: not merged but copied from the base: {first.name} ({first.reason}){more}; "
        "--strict refuses this",
        file=sys.stderr,
    )
