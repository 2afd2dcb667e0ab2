"""The command line: `python -m merging COMMAND`.

Results go to stdout (`--json`: one object), progress and messages to stderr. Exit status: 0 done,
2 the user's input is wrong (one line, no traceback), 130 interrupted, 1 a defect of ours.
torch is imported only by the commands that need it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merging import console
from merging.console import Bar, print_json
from merging.trial import commands as trial

USER_ERROR, INTERRUPTED = 2, 130


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

    command = _command(commands, "merge", _merge, "run a recipe and write the merged model")
    command.add_argument("recipe", type=Path, help="a YAML file")
    command.add_argument("out", type=Path, help="folder to write; appears complete or not at all")
    command.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda", "mps"),
        help="auto: the CPU's loops where they run, else a GPU that is there",
    )  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace an existing model")
    command.add_argument(
        "--resume", action="store_true",
        help="go on where a merge of the same recipe was interrupted; keep what is done",
    )  # fmt: skip
    command.add_argument(
        "--strict", action="store_true", help="refuse what the preflight merely warns of"
    )
    command.add_argument(
        "--shard-size", type=_size, default=None, metavar="SIZE", help="upper bound of a file: 5GB"
    )

    command = _command(commands, "check", _check, "preflight: every problem, from headers alone")
    command.add_argument("recipe", type=Path, help="a YAML file")
    command.add_argument("--out", type=Path, default=None, help="also check this output folder")

    command = _command(commands, "inspect", _inspect, "statistics of every expert's changes")
    command.add_argument("base", help="a folder, a Hub id or demo:NAME")
    command.add_argument("experts", nargs="+", metavar="expert")

    command = _command(commands, "evaluate", trial.evaluate, "score models on held-out prompts")
    trial.evaluate_options(command)

    command = _command(
        commands,
        "search",
        trial.search,
        "learn a task-arithmetic recipe's weights on validation prompts",
    )
    trial.search_options(command)

    demo = commands.add_parser("demo", help="the built-in family")
    demo_commands = demo.add_subparsers(dest="demo_command", required=True, metavar="COMMAND")
    command = _command(
        demo_commands, "build", _demo_build, "train the built-in family from scratch"
    )
    command.add_argument("out", type=Path)
    command.add_argument("--seed", type=int, default=0)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], help_: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=help_, description=help_)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    return parser


def _merge(args: argparse.Namespace) -> int:
    import threading

    from merging import recipe as recipes
    from merging.checkpoints.writer import SHARD_BYTES
    from merging.merge import merge

    recipe = recipes.load(args.recipe)
    for note in recipe.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.strict:
        _refuse_warnings(recipe)
    cancel = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: cancel.set())
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


def _check(args: argparse.Namespace) -> int:
    from merging import recipe as recipes
    from merging.errors import RecipeError
    from merging.merge import Problem, Report, check

    try:
        report = check(recipes.load(args.recipe), args.out)
    except RecipeError as error:
        if not args.json:
            raise
        report = Report((Problem("error", "recipe", str(error)),), (), 0, 0)
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
            where = "" if problem.message.startswith(problem.where) else f"{problem.where}: "
            print(f"{problem.severity}: {where}{problem.message}")
        if not report.account:
            print("not ready: no family to merge")
            return USER_ERROR
        merged = sum(entry.status == "merged" for entry in report.account)
        print(
            f"{'ready' if report.ok else 'not ready'}: {merged} of {len(report.account)} tensors "
            f"merged, {report.disk_bytes / 1e6:.1f} MB on disk, about "
            f"{report.memory_bytes / 1e6:.0f} MB of memory"
        )
    return 0 if report.ok else USER_ERROR


def _inspect(args: argparse.Namespace) -> int:
    from merging.checkpoints import open_checkpoint, open_family, resolve
    from merging.errors import RecipeError
    from merging.scan import scan

    if len(set(args.experts)) < len(args.experts):
        raise RecipeError("an expert is listed twice; give each once")
    models = [open_checkpoint(resolve(name), name) for name in (args.base, *args.experts)]
    family = open_family(models[0], models[1:])
    sketch = scan(family, progress=Bar())
    experts: dict[str, Any] = {}
    for row, name in enumerate(sketch.experts):
        tensors = {}
        for column, tensor in enumerate(sketch.tensors):
            l1 = float(sketch.l1[row, column].sum())
            tensors[tensor.name] = {
                "numel": tensor.numel,
                "zeros": int(sketch.zeros[row, column]),
                "mean_abs": l1 / max(tensor.numel, 1),
                "max_abs": float(sketch.max_abs[row, column]),
                "l1": l1,
                "l2": float(sketch.l2[row, column].sum()) ** 0.5,
            }
        experts[name] = {"tensors": tensors}
    if args.json:
        account = [{"name": e.name, "status": e.status, "reason": e.reason} for e in family.account]
        print_json(
            {
                "base": args.base,
                "experts": experts,
                "account": account,
                "seconds": round(sketch.seconds, 3),
            }
        )
        return 0
    for name, values in experts.items():
        print(f"{name}\n{'tensor':<52}{'entries':>12}{'zeros':>12}{'mean|d|':>12}{'max|d|':>12}")
        for tensor, row_ in values["tensors"].items():
            print(
                f"{tensor:<52}{row_['numel']:>12}{row_['zeros']:>12}"
                f"{row_['mean_abs']:>12.3e}{row_['max_abs']:>12.3e}"
            )
    return 0


def _demo_build(args: argparse.Namespace) -> int:
    from merging.demo.build import build
    from merging.errors import OutputExists

    def progress(phase: str, share: float) -> None:
        console.status(f"{share:4.0%} {phase}")

    trial.quiet_transformers()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        timings = build(args.out, seed=args.seed, progress=progress)
    except FileExistsError as error:
        raise OutputExists(f"{args.out} exists and is not empty; give another name") from error
    console.status("")
    if args.json:
        print_json({"out": str(args.out), **timings})
    else:
        print(args.out)
    return 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _size(text: str) -> int:
    """Bytes of "500MB", "5GB", "5000000"."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}
    for unit, factor in units.items():
        if text.upper().endswith(unit):
            text, scale = text[: -len(unit)], factor
            break
    else:
        scale = 1
    try:
        value = int(float(text) * scale)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 5GB") from None
    if value <= 0:
        raise argparse.ArgumentTypeError("the size must be above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
