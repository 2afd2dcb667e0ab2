"""The commands `evaluate` and `search`: their options, and what they print."""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.commands.console import Ticker, positive, print_json, say, status, tell
from merging.system.interrupts import STATUS, cancelled_by_signals

if TYPE_CHECKING:
    from merging.recipe import Recipe
    from merging.trial.model import Model
    from merging.trial.search import SearchResult

_SURE_S = 3.0  # of work, before it is said how long the rest takes
_TASKS = "JSON lines: domain, prompt, answer; scoring and choices (see the README)"


def evaluate_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `evaluate`."""
    command.add_argument("models", nargs="+", metavar="model")
    command.add_argument("--tasks", type=Path, default=None, help=_TASKS)
    command.add_argument(
        "--n", type=positive, default=None, help="prompts per domain (200; of a file: all)"
    )
    command.add_argument("--split", default="test", choices=("test", "validation"))
    command.add_argument(
        "--batch",
        type=positive,
        default=256,
        help="prompts at a time (256); fewer where memory is short",
    )
    command.add_argument(
        "--longest",
        type=positive,
        default=None,
        metavar="TOKENS",
        help="where a reply is cut off (the longest answer and 8; 256 where replies are searched)",
    )

    _device_option(command)


def _device_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "mps"),
        help="auto: a GPU where there is one, else the CPU",
    )


def search_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `search`."""
    command.add_argument("recipe", type=Path, help="a YAML file; its weights are the start")
    command.add_argument(
        "--out", type=Path, default=None, help="write the found recipe there (default: stdout)"
    )
    command.add_argument("--tasks", type=Path, default=None, help=_TASKS)
    command.add_argument("--n", type=positive, default=800, help="prompts per domain (800)")
    command.add_argument("--steps", type=positive, default=200, help="steps (200)")
    command.add_argument(
        "--batch",
        type=positive,
        default=96,
        help="prompts per step (96); where memory is short they are taken in parts",
    )
    _device_option(command)


def evaluate(args: argparse.Namespace) -> int:
    """Scores models, and prints each score as it is known; returns the exit status."""
    from merging.checkpoints import open_checkpoint, resolve
    from merging.errors import Cancelled
    from merging.trial import confined

    confined.warm()  # while this process imports
    models = {name: resolve(name) for name in args.models}
    for name, folder in models.items():
        open_checkpoint(folder, name)  # refuses pickle and remote code before anything is loaded
    quiet_transformers()
    from merging.trial.evaluate import Limits, choose_tasks, scored

    tasks = choose_tasks(None, args.n, args.split, args.tasks)
    domains = len({task.domain for task in tasks})
    cancel, clock = cancelled_by_signals(), _Clock()
    scores: dict[str, dict[str, Any]] = {}
    wide = 2 + max(22, *map(len, models))
    try:
        for name, domain, score in scored(
            models,
            tasks,
            Limits(args.longest, args.batch, args.device),
            cancel=cancel,
            placed=_tell_place,
            progress=lambda name, share: clock(share, name),
        ):
            scores.setdefault(name, {})[domain] = score
            status("")
            if not args.json:
                say(_line(name, wide, domain, score))
    except Cancelled:
        count = sum(map(len, scores.values()))
        tell(f"interrupted; {count} of {len(models) * domains} scores are known")
        return STATUS
    finally:
        status("")
        if args.json and scores:
            print_json({"scores": scores})
    return 0


def _tell_place(model: Model) -> None:
    """Says where a model lies, unless that is in memory as a whole."""
    place = model.placement
    if place is not None and not (place.is_whole and place.main.type == "cpu"):
        tell("note", f"{model.name}: {place}")


def _line(name: str, wide: int, domain: str, score: dict[str, float]) -> str:
    return (
        f"{name:<{wide}}{domain:<12}{score['score']:>7.1%}  "
        f"({score['low']:.1%} to {score['high']:.1%}, n = {score['n']})"
    )


def search(args: argparse.Namespace) -> int:
    """Learns a recipe's weights; returns the exit status."""
    from merging import recipe as recipes
    from merging.errors import OutputExists, RecipeError
    from merging.trial import confined

    if args.out is not None and args.out.exists():
        raise OutputExists(f"{args.out} exists; give another name")
    if args.out is not None and not os.access(args.out.resolve().parent, os.W_OK):
        raise RecipeError(f"--out {args.out}: its folder is missing or cannot be written")
    recipe = recipes.load(args.recipe)
    domains = _own_domains(recipe) if args.tasks is None else None
    confined.warm()  # while this process imports
    quiet_transformers()
    from merging.trial.search import search
    from merging.trial.tasks import choose_tasks

    tasks = choose_tasks(domains, args.n, "validation", args.tasks)
    cancel, clock = cancelled_by_signals(), _Clock()
    result = search(
        recipe,
        tasks,
        steps=args.steps,
        batch=args.batch,
        device=args.device,
        progress=lambda step, loss: clock(
            step / args.steps, "" if math.isnan(loss) else f"loss {loss:.4f}"
        ),
        note=lambda text: tell("note", text),
        cancel=cancel,
    )
    status("")
    _tell_result(args, result)
    return 0 if result.is_whole else STATUS


def _own_domains(recipe: Recipe) -> list[str]:
    """The domains of a recipe's built-in experts. Raises RecipeError where it has others."""
    from merging.demo import DOMAINS
    from merging.errors import RecipeError

    models = {f"demo:{domain}": domain for domain in DOMAINS}
    domains = [models[s.model] for s in recipe.sources if s.model in models]
    if len(domains) < len(recipe.sources):
        raise RecipeError("search: give --tasks FILE with validation prompts for these models")
    return domains


def _tell_result(args: argparse.Namespace, result: SearchResult) -> None:
    """Writes and prints what a search found, whole or stopped."""
    from merging import recipe as recipes
    from merging.run import record

    text = recipes.dump(record.portable(result.recipe))
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.json:
        first, last = (round(loss, 6) for loss in (result.losses[0], result.losses[-1]))
        print_json({"recipe": text, "loss": {"first": first, "last": last}})
    else:
        say(str(args.out or text))
    if not result.is_whole:
        tell(
            f"interrupted after {len(result.losses)} of {result.steps} steps; the recipe has the "
            "best weights so far"
        )


class _Clock:
    """Says how far a share of the work is and how long the rest will take."""

    def __init__(self) -> None:
        self._tell, self._before, self._began = Ticker(), 0.0, time.monotonic()

    def __call__(self, share: float, text: str) -> None:
        if share < self._before:  # the next model
            self._began = time.monotonic()
        self._before = share
        remainder = ""
        if share > 0 and (spent := time.monotonic() - self._began) > _SURE_S:
            remainder = f", {spent * (1 - share) / share:.0f} s left"
        self._tell(f"{share:4.0%} {text}{remainder}")


def quiet_transformers() -> None:
    """Progress is told in our own words."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
