"""`merge RECIPE OUT`: runs a recipe and writes the merged model."""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.commands.console import Bar, command, print_json, say, size, tell
from merging.errors import OutputLost, RecipeError, one_line
from merging.system.interrupts import cancelled_by_signals

if TYPE_CHECKING:
    from merging.kinship import Problem
    from merging.run.merge import Result

KINDS = (
    "recipe",
    "models",
    "config",
    "layers",
    "shape",
    "tokenizer",
    "template",
    "generation",
    "names",
    "rows",
    "tensors",
)
"""What a finding may be about (`Problem.kind`), in one word."""


def declare(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = command(commands, "merge", run, "run a recipe and write the merged model")
    parser.add_argument("recipe", type=Path, help="a YAML file")
    parser.add_argument("out", type=Path, help="folder to write; appears complete or not at all")
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "mps"),
        help="auto: the CPU's loops where they run, else a GPU that is there",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing model")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on where a merge of the same recipe was interrupted; keep what is done",
    )
    parser.add_argument(
        "--strict",
        type=_kinds,
        default=(),
        nargs="?",
        metavar="KINDS",
        help="refuse what check warns of; --strict=tokenizer,config: only that of these kinds "
        f"({', '.join(KINDS)})",
    )
    parser.add_argument(
        "--intermediate-dir",
        type=Path,
        default=None,
        metavar="DIR",
        help="of a recipe in several stages: keep the earlier results here",
    )
    parser.add_argument(
        "--shard-size", type=size, default=None, metavar="SIZE", help="upper bound of a file: 5GB"
    )


def run(args: argparse.Namespace) -> int:
    """Merges; prints the folder, the account and the fingerprint."""
    from merging import recipe as recipes
    from merging.checkpoints.writer import SHARD_BYTES
    from merging.run.merge import merge
    from merging.run.preflight import check

    recipe = recipes.load(args.recipe)
    problems = check(recipe).problems
    for problem in problems:
        if problem.severity != "error":  # the merge ends with that in a moment
            tell(problem.severity, problem.sentence)
    _refuse_warnings(problems, args.strict)
    result = merge(
        recipe,
        args.out,
        device=args.device,
        overwrite=args.overwrite,
        shard_bytes=args.shard_size or SHARD_BYTES,
        resume=args.resume,
        progress=Bar(),
        cancel=cancelled_by_signals(),
        stages=args.intermediate_dir,
    )
    _note_drift(result)
    reported = {problem.message for problem in problems}
    for note in map(one_line, result.notes):
        if note not in reported:
            tell("note", note)
    try:
        if args.json:
            print_json(_document(result, problems))
        else:
            say(*_lines(result))
    except OutputLost as error:
        raise OutputLost(f"{error}, but the model is written: {result.out}") from error
    return 0


def _note_drift(result: Result) -> None:
    """Notes beside the model how far its layers moved. Where that cannot be, nothing is lost."""
    from merging.run.notes import Notes, titled, write_notes

    if result.drift:
        with contextlib.suppress(OSError):
            write_notes(result.out, Notes(titled(result.drift)))


def _document(result: Result, problems: Sequence[Problem]) -> dict[str, Any]:
    """The result as one JSON object."""
    from merging.declarations.retention import document

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
        "kept": {name: document(part) for name, part in result.retention.items()},
        "problems": [vars(problem) for problem in problems],
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


def _refuse_warnings(problems: Sequence[Problem], kinds: Sequence[str]) -> None:
    """Raises RecipeError where the preflight warns of something of these kinds."""
    warnings = [
        problem for problem in problems if problem.severity == "warning" and problem.kind in kinds
    ]
    if warnings:
        more = f" (and {len(warnings) - 1} more; see check)" if len(warnings) > 1 else ""
        raise RecipeError(f"--strict={warnings[0].kind}: {warnings[0].sentence}{more}")


def _kinds(text: str) -> tuple[str, ...]:
    """The kinds of --strict=KINDS; "all" for every one. Raises ArgumentTypeError."""
    words = tuple(word.strip() for word in text.split(","))
    for word in words:
        if word not in (*KINDS, "all"):
            raise argparse.ArgumentTypeError(f"{word!r} is no kind; valid: {', '.join(KINDS)}, all")
    return KINDS if "all" in words else words
