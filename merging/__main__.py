"""The command line: `python -m merging COMMAND`.

Results go to stdout (`--json`: one object), progress and messages to stderr. Exit status: 0 done,
2 the user's input is wrong (one line, no traceback), 130 interrupted, 1 a defect of ours.
torch is imported only by the commands that need it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

USER_ERROR, INTERRUPTED = 2, 130
_TELL_S = 10.0  # between two lines of progress where stderr is no terminal


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

    command = _command(commands, "evaluate", _evaluate, "score models on held-out prompts")
    command.add_argument("models", nargs="+", metavar="model")
    command.add_argument(
        "--tasks", type=Path, default=None, help="JSON lines: domain, prompt, answer"
    )
    command.add_argument(
        "--n", type=_positive, default=None, help="prompts per domain (200; of a file: all)"
    )
    command.add_argument("--split", default="test", choices=("test", "validation"))

    command = _command(
        commands,
        "search",
        _search,
        "learn a task-arithmetic recipe's weights on validation prompts",
    )
    command.add_argument("recipe", type=Path, help="a YAML file; its weights are the start")
    command.add_argument(
        "--out", type=Path, default=None, help="write the found recipe there (default: stdout)"
    )
    command.add_argument(
        "--tasks", type=Path, default=None, help="JSON lines: domain, prompt, answer"
    )
    command.add_argument("--n", type=_positive, default=800, help="prompts per domain (800)")
    command.add_argument("--steps", type=_positive, default=200, help="steps (200)")

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
        progress=_Bar(),
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
        _print_json(document)
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
        _print_json(
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
    sketch = scan(family, progress=_Bar())
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
        _print_json(
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


def _evaluate(args: argparse.Namespace) -> int:
    from merging.checkpoints import open_checkpoint, resolve
    from merging.trial.evaluate import evaluate

    models = {name: resolve(name) for name in args.models}
    for name, folder in models.items():
        open_checkpoint(folder, name)  # refuses pickle and remote code before anything is loaded
    _quiet_transformers()
    scores = evaluate(
        models, n=args.n, split=args.split, tasks=args.tasks,
        progress=lambda name, share: _status(f"{share:4.0%} {name}"),
    )  # fmt: skip
    _status("")
    if args.json:
        _print_json(scores)
        return 0
    wide = 2 + max(22, *map(len, scores["scores"]))
    for name, domains in scores["scores"].items():
        for domain, score in domains.items():
            print(
                f"{name:<{wide}}{domain:<12}{score['score']:>7.1%}  "
                f"({score['low']:.1%} to {score['high']:.1%}, n = {score['n']})"
            )
    return 0


def _search(args: argparse.Namespace) -> int:
    import threading

    from merging import recipe as recipes
    from merging import record
    from merging.demo import DOMAINS
    from merging.errors import OutputExists, RecipeError
    from merging.trial.evaluate import choose_tasks
    from merging.trial.search import search

    if args.out is not None and args.out.exists():
        raise OutputExists(f"{args.out} exists; give another name")
    if args.out is not None and not os.access(args.out.resolve().parent, os.W_OK):
        raise RecipeError(f"--out {args.out}: its folder is missing or cannot be written")
    recipe = recipes.load(args.recipe)
    domains = None
    if args.tasks is None:
        models = {f"demo:{domain}": domain for domain in DOMAINS}
        domains = [models[s.model] for s in recipe.sources if s.model in models]
        if len(domains) < len(recipe.sources):
            raise RecipeError("search: give --tasks FILE with validation prompts for these models")
    _quiet_transformers()
    cancel = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: cancel.set())
    found = search(
        recipe,
        choose_tasks(domains, args.n, "validation", args.tasks),
        steps=args.steps,
        progress=lambda step, loss: _status(f"{step / args.steps:4.0%} loss {loss:.4f}"),
        cancel=cancel,
    )
    _status("")
    text = recipes.dump(record.portable(found.recipe))
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.json:
        first, last = (round(loss, 6) for loss in (found.losses[0], found.losses[-1]))
        _print_json({"recipe": text, "loss": {"first": first, "last": last}})
    else:
        print(args.out or text)
    return 0


def _quiet_transformers() -> None:
    """Progress is told in our own words."""
    import transformers

    transformers.utils.logging.disable_progress_bar()


def _demo_build(args: argparse.Namespace) -> int:
    from merging.demo.build import build
    from merging.errors import OutputExists

    def progress(phase: str, share: float) -> None:
        _status(f"{share:4.0%} {phase}")

    _quiet_transformers()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        timings = build(args.out, seed=args.seed, progress=progress)
    except FileExistsError as error:
        raise OutputExists(f"{args.out} exists and is not empty; give another name") from error
    _status("")
    if args.json:
        _print_json({"out": str(args.out), **timings})
    else:
        print(args.out)
    return 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


class _Bar:
    """Progress on stderr: one line redrawn in place on a terminal, one every 10 s elsewhere."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _TELL_S

    def __call__(self, progress: Any) -> None:
        share = progress.done / progress.total if progress.total else 1.0
        eta = f", {progress.eta_s:.0f} s left" if progress.eta_s is not None else ""
        text = f"{share:4.0%} {progress.phase} {progress.tensor}{eta}"
        if sys.stderr.isatty():
            _status(text)
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + _TELL_S
            print(text, file=sys.stderr, flush=True)


def _status(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text[:110]}")
        sys.stderr.flush()


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


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def _print_json(document: Any) -> None:
    print(json.dumps(document))


if __name__ == "__main__":
    sys.exit(main())
