"""The commands `evaluate` and `search`: their options, and what they print."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from merging.console import positive, print_json, say, status
from merging.interrupts import cancelled_by_signals


def evaluate_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `evaluate`."""
    command.add_argument("models", nargs="+", metavar="model")
    command.add_argument(
        "--tasks", type=Path, default=None, help="JSON lines: domain, prompt, answer"
    )
    command.add_argument(
        "--n", type=positive, default=None, help="prompts per domain (200; of a file: all)"
    )
    command.add_argument("--split", default="test", choices=("test", "validation"))


def search_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `search`."""
    command.add_argument("recipe", type=Path, help="a YAML file; its weights are the start")
    command.add_argument(
        "--out", type=Path, default=None, help="write the found recipe there (default: stdout)"
    )
    command.add_argument(
        "--tasks", type=Path, default=None, help="JSON lines: domain, prompt, answer"
    )
    command.add_argument("--n", type=positive, default=800, help="prompts per domain (800)")
    command.add_argument("--steps", type=positive, default=200, help="steps (200)")


def evaluate(args: argparse.Namespace) -> int:
    """Scores models; returns the exit status."""
    from merging.checkpoints import open_checkpoint, resolve
    from merging.trial.evaluate import evaluate

    models = {name: resolve(name) for name in args.models}
    for name, folder in models.items():
        open_checkpoint(folder, name)  # refuses pickle and remote code before anything is loaded
    quiet_transformers()
    scores = evaluate(
        models, n=args.n, split=args.split, tasks=args.tasks,
        progress=lambda name, share: status(f"{share:4.0%} {name}"),
    )  # fmt: skip
    status("")
    if args.json:
        print_json(scores)
        return 0
    wide = 2 + max(22, *map(len, scores["scores"]))
    for name, domains in scores["scores"].items():
        for domain, score in domains.items():
            say(
                f"{name:<{wide}}{domain:<12}{score['score']:>7.1%}  "
                f"({score['low']:.1%} to {score['high']:.1%}, n = {score['n']})"
            )
    return 0


def search(args: argparse.Namespace) -> int:
    """Learns a recipe's weights; returns the exit status."""
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
    quiet_transformers()
    cancel = cancelled_by_signals()
    found = search(
        recipe,
        choose_tasks(domains, args.n, "validation", args.tasks),
        steps=args.steps,
        progress=lambda step, loss: status(f"{step / args.steps:4.0%} loss {loss:.4f}"),
        cancel=cancel,
    )
    status("")
    text = recipes.dump(record.portable(found.recipe))
    if args.out is not None:
        args.out.write_text(text, encoding="utf-8")
    if args.json:
        first, last = (round(loss, 6) for loss in (found.losses[0], found.losses[-1]))
        print_json({"recipe": text, "loss": {"first": first, "last": last}})
    else:
        say(str(args.out or text))
    return 0


def quiet_transformers() -> None:
    """Progress is told in our own words."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(transformers.utils.logging.CRITICAL)
