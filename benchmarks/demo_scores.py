"""Scores of the built-in family and of every shipped recipe's merge, on held-out prompts.

    python -m benchmarks.demo_scores                          # the shipped family
    python -m benchmarks.demo_scores --families S0 S1 S2 --recipes R0 R1 R2 --out FILE  # mean

Writes `assets/demo/scores.json`. A recipe names its models `demo:NAME`; for another family than
the shipped one these names are read as that family's folders.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from merging import recipe as recipes
from merging.checkpoints import open_checkpoint
from merging.demo import DOMAINS, NAMES
from merging.run.merge import merge
from merging.trial.evaluate import evaluate

ROOT = Path(__file__).resolve().parents[1]
Scores = dict[str, dict[str, dict[str, float]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints a table on stderr and writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", type=Path, nargs="+", default=[ROOT / "assets" / "demo"])
    parser.add_argument(
        "--recipes",
        type=Path,
        nargs="+",
        default=[ROOT / "assets" / "recipes"],
        help="a folder of recipes for all families, or one for each (learned weights fit one)",
    )
    parser.add_argument("--n", type=int, default=1000, help="prompts per domain (1000)")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "demo" / "scores.json")
    args = parser.parse_args(argv)
    transformers.utils.logging.disable_progress_bar()
    folders = args.recipes * len(args.families) if len(args.recipes) == 1 else args.recipes
    measured = [
        measure(family, sorted(folder.glob("*.yaml")), args.n, args.split)
        for family, folder in zip(args.families, folders, strict=True)
    ]
    report = {
        "command": f"python -m benchmarks.demo_scores --n {args.n} --split {args.split}"
        + (f" --families {' '.join(f.name for f in args.families)}" if len(measured) > 1 else ""),
        "n": args.n,
        "split": args.split,
        "families": len(measured),
        "mean_abs_delta": averaged([drift(family) for family in args.families]),
        "scores": {name: combine([one[name] for one in measured]) for name in measured[0]},
    }
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name, domains in report["scores"].items():
        cells = "".join(f"{domains[domain]['score']:>9.1%}" for domain in DOMAINS)
        print(f"{name:<28}{cells}", file=sys.stderr)
    return 0


def measure(family: Path, recipe_files: Sequence[Path], n: int, split: str) -> Scores:
    """Returns {model or recipe: {domain: {"score", "low", "high", "n"}}} of one family."""
    scores: Scores = evaluate({n_: family / n_ for n_ in NAMES}, n=n, split=split)["scores"]
    for file in recipe_files:
        text = file.read_text(encoding="utf-8").replace("demo:", f"{family.resolve()}/")
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "merged"
            merge(recipes.parse(text), out, device="cpu")
            scores |= evaluate({file.stem: out}, n=n, split=split)["scores"]
    return scores


def combine(families: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, object]]:
    """Averages one model's scores over families; with several, their own scores stand beside."""
    if len(families) == 1:
        return dict(families[0])
    return {
        domain: {
            "score": statistics.fmean(one[domain]["score"] for one in families),
            "each": [one[domain]["score"] for one in families],
            "n": sum(one[domain]["n"] for one in families),
        }
        for domain in DOMAINS
    }


def drift(family: Path) -> dict[str, float]:
    """Returns each expert's mean |delta| over all of its parameters."""
    means = {}
    base = open_checkpoint(family / "base", "base")
    for name in DOMAINS:
        expert = open_checkpoint(family / name, name)
        total, count = 0.0, 0
        for tensor in base.tensors:
            delta = expert.read(tensor).float() - base.read(tensor).float()
            total += float(delta.abs().sum(dtype=torch.float64))
            count += delta.numel()
        means[name] = total / count
    return means


def averaged(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Averages figures that share their keys."""
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


if __name__ == "__main__":
    sys.exit(main())
