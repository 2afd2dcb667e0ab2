"""Methods of the field on a family of one's own: merged and scored, a row each.

`python -m benchmarks.field --base BASE --experts EXPERT... --tasks FILE METHOD[:KEY=VALUE,...] ...`
merges under each method with these parameters, scores the result on the file's first prompts of
every domain, prints a row of a table, and removes it. Where `task` is given, its number counts the
experts and, in the same order, the file's domains: only that one is scored.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from merging.recipe import build
from merging.run.merge import merge
from merging.trial.evaluate import evaluate


def parameters_of(text: str) -> tuple[str, dict[str, Any]]:
    """`iso_c:lambda=1.5` as the method's name and its parameters."""
    method, _, pairs = text.partition(":")
    split = (pair.partition("=") for pair in pairs.split(",") if pair)
    return method, {key: yaml.safe_load(value) for key, _, value in split}


def domains_of(tasks: Path) -> list[str]:
    """The domains of a task file, in its order."""
    lines = tasks.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(json.loads(line)["domain"] for line in lines if line.strip()))


def row(args: argparse.Namespace, text: str, out: Path) -> str:
    """One method's row: its parameters, scores in percent, their mean, seconds of merging."""
    method, parameters = parameters_of(text)
    domains = domains_of(args.tasks)
    recipe = build(
        method=method,
        base=str(args.base),
        models=[(str(expert), {}) for expert in args.experts],
        parameters=parameters,
        folder=Path.cwd(),
    )
    began = time.perf_counter()
    merge(recipe, out, device=args.device)
    seconds = time.perf_counter() - began
    asked = [domains[parameters["task"] - 1]] if "task" in parameters else domains
    scores = evaluate({"m": out}, domains=asked, n=args.n, tasks=args.tasks)["scores"]["m"]
    cells = [f"{100 * scores[name]['score']:.0f}" if name in scores else "-" for name in domains]
    mean = sum(100 * scores[name]["score"] for name in asked) / len(asked)
    values = ", ".join(f"{key} {value}" for key, value in parameters.items()) or "-"
    return f"| {method} | {values} | {' | '.join(cells)} | {mean:.1f} | {seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, type=Path)
    parser.add_argument("--experts", required=True, nargs="+", type=Path)
    parser.add_argument("--tasks", required=True, type=Path, help="JSON lines, see the README")
    parser.add_argument("--n", type=int, default=60, help="prompts per domain (60)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("methods", nargs="+", metavar="METHOD[:KEY=VALUE,...]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for index, text in enumerate(args.methods):
            print(row(args, text, Path(scratch) / str(index)), flush=True)


if __name__ == "__main__":
    main()
