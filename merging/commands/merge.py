"""`merge RECIPE OUT`: runs a recipe and writes the merged model."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.console import Bar, command, print_json, say, size, tell
from merging.errors import OutputLost, one_line
from merging.interrupts import cancelled_by_signals

if TYPE_CHECKING:
    from merging.merge import Result


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
        tell("note", note)
    if args.strict:
        _refuse_warnings(recipe)
    result = merge(
        recipe,
        args.out,
        device=args.device,
        overwrite=args.overwrite,
        shard_bytes=args.shard_size or SHARD_BYTES,
        resume=args.resume,
        progress=Bar(),
        cancel=cancelled_by_signals(),
    )
    for note in result.notes[len(recipe.notes) :]:
        tell("note", note)
    _warn([entry for entry in result.account if entry.status == "copied"])
    try:
        if args.json:
            print_json(_document(result))
        else:
            say(*_lines(result))
    except OutputLost as error:
        raise OutputLost(f"{error}, but the model is written: {result.out}") from error
    return 0


def _document(result: Result) -> dict[str, Any]:
    """The result as one JSON object."""
    from merging.retention import document

    tensors: dict[str, list[Any]] = {"merged": [], "copied": [], "left_out": []}
    for entry in result.account:
        tensors[entry.status].append({"name": entry.name, "reason": entry.reason})
    return {
        "out": str(result.out),
        "fingerprint": result.fingerprint,
        "seconds": round(result.seconds, 3),
        "peak_bytes": result.peak_bytes,
        "device": result.device,
        "engine": result.engine,
        "tensors": tensors,
        "kept": {name: document(kept) for name, kept in result.kept.items()},
        "notes": list(result.notes),
        "drift": {str(layer): drift for layer, drift in result.drift.items()},
    }


def _lines(result: Result) -> Iterator[str]:
    """The result in lines."""
    counts = Counter(entry.status for entry in result.account)
    yield str(result.out)
    yield (
        f"{counts['merged']} tensors merged, {counts['copied']} copied, "
        f"{counts['left_out']} left out, in {result.seconds:.2f} s on {result.device}, "
        f"peak {result.peak_bytes / 1e6:.0f} MB"
    )
    for status in ("merged", "copied", "left_out"):
        for entry in result.account:
            if entry.status == status and entry.reason:
                yield one_line(f"{status.replace('_', ' ')}: {entry.name}: {entry.reason}")
    yield result.fingerprint


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
    tell(
        "warning",
        f"not merged but copied from the base: {first.name} ({first.reason}){more}; "
        "--strict refuses this",
    )
