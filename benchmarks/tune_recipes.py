"""Makes the recipes that ship with the built-in family: `python -m benchmarks.tune_recipes`.

Every recipe's values are chosen on validation prompts, which no score is reported on: over a small
grid, by the mean share of exact answers on the domains that are merged; the weights of the learned
recipes by `merging.trial.search`. Writes `assets/recipes`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
import yaml

from merging import recipe as recipes
from merging.demo import DOMAINS
from merging.demo.tasks import held_out
from merging.recipe import Recipe
from merging.run.merge import merge
from merging.trial.evaluate import evaluate
from merging.trial.search import search

ROOT = Path(__file__).resolve().parents[1]
PROMPTS, SEARCH_PROMPTS = 200, 1000  # validation prompts per domain


@dataclass(frozen=True)
class Grid:
    """One method for all four experts: what is tried, and what the file says first."""

    name: str
    says: str
    method: str
    model: dict[str, Sequence[Any]]
    whole: dict[str, Sequence[Any]]

    def recipes(self, family: Path) -> Iterator[Recipe]:
        """Every recipe of the grid."""
        for values in itertools.product(*self.model.values(), *self.whole.values()):
            named = dict(zip((*self.model, *self.whole), values, strict=True))
            own = {key: named[key] for key in self.model}
            yield recipes.build(
                method=self.method,
                base=str(family / "base"),
                models=[(str(family / name), own) for name in DOMAINS],
                parameters={key: named[key] for key in self.whole},
            )


GRIDS = (
    Grid("all_average", "All four averaged: the line to beat.", "linear", {}, {}),
    Grid(
        "all_task_arithmetic",
        "All four added up, scaled.",
        "task_arithmetic",
        {},
        {"lambda": (0.3, 0.4, 0.5, 0.6, 0.7)},
    ),
    Grid(
        "all_ties",
        "All four by elected signs.",
        "ties",
        {"density": (0.2, 0.5, 0.8)},
        {"lambda": (0.6, 1.0, 1.4, 1.8, 2.4, 3.0)},
    ),
    Grid(
        "all_dare_ties",
        "All four, thinned at random, by elected signs.",
        "dare_ties",
        {"density": (0.5, 0.7, 0.9), "weight": (0.3, 0.4, 0.5, 0.6)},
        {},
    ),
    Grid(
        "all_dppa",
        "All four, pruned by outliers of layers and linears.",
        "dppa",
        {
            "density": (0.2, 0.4, 0.7),
            "amplification": tuple(
                [round(scale * factor, 2) for factor in (1.2, 1.0)]
                for scale in (0.3, 0.4, 0.5, 0.7, 1.0)
            ),
        },
        {"scale_dense": ("max", "none")},
    ),
    Grid(
        "all_pcb",
        "All four, by balanced competition.",
        "pcb",
        {"weight": (0.7, 1.1, 1.5, 2.0, 2.6)},
        {"density": (0.1, 0.3, 0.5)},
    ),
)
LEARNED = {
    "add_sort": ("Adds and sorts: the first merge to make.", ("add", "sort")),
    "add_reverse": ("Adds and reverses.", ("add", "reverse")),
    "all_learned": ("All four, with a weight per expert, module and layer.", DOMAINS),
}


def accuracy(recipe: Recipe, domains: Sequence[str]) -> float:
    """Mean share of exact answers of a recipe's merge on validation prompts, 0..1."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "merged"
        merge(recipe, out, device="cpu")
        report = evaluate({"merged": out}, domains=domains, n=PROMPTS, split="validation")
    return statistics.fmean(report["scores"]["merged"][domain]["score"] for domain in domains)


def best(grid: Grid, family: Path) -> Recipe:
    """The recipe of a grid that answers best."""
    tried = [(accuracy(recipe, DOMAINS), recipe) for recipe in grid.recipes(family)]
    score, recipe = max(tried, key=lambda pair: pair[0])
    print(f"{grid.name}: {score:.1%} of validation prompts ({len(tried)} tried)", file=sys.stderr)
    return recipe


def learned(name: str, domains: Sequence[str], family: Path) -> Recipe:
    """Task arithmetic with learned weights."""
    start = recipes.build(
        method="task_arithmetic",
        base=str(family / "base"),
        models=[(str(family / domain), {"weight": 0.6}) for domain in domains],
    )
    tasks = [task for d in domains for task in held_out(d, "validation", SEARCH_PROMPTS)]
    recipe = search(start, tasks).recipe
    print(f"{name}: {accuracy(recipe, domains):.1%} of validation prompts", file=sys.stderr)
    return recipe


def written(recipe: Recipe, says: str, family: Path) -> str:
    """A recipe as a file: what it is, then only what differs from the defaults."""
    document = yaml.safe_load(recipes.dump(recipe).replace(f"{family}/", "demo:"))
    plain = recipes.build(method=recipe.method, base="demo:base", models=[("demo:add", {})])
    usual = yaml.safe_load(recipes.dump(plain))
    for model in document["models"]:
        first = usual["models"][0]["parameters"]
        own = {k: v for k, v in model["parameters"].items() if v != first[k]}
        model["parameters"] = own
        if not own:
            del model["parameters"]
    own = {k: v for k, v in document["parameters"].items() if v != usual["parameters"][k]}
    document["parameters"] = own
    if not own:
        del document["parameters"]
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100)
    return f"# {says} Values chosen on validation prompts.\n{text}"


class _Dumper(yaml.SafeDumper):
    """Lists of numbers in one line."""


def _list(dumper: yaml.SafeDumper, value: list) -> yaml.Node:
    flat = all(isinstance(item, int | float) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_Dumper.add_representer(list, _list)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", type=Path, default=ROOT / "assets" / "demo")
    parser.add_argument("--out", type=Path, default=ROOT / "assets" / "recipes")
    parser.add_argument("--only", nargs="+", help="names of recipes")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    args.out.mkdir(parents=True, exist_ok=True)
    family = args.family.resolve()
    made: dict[str, tuple[str, Any]] = {grid.name: (grid.says, grid) for grid in GRIDS}
    made |= LEARNED
    for name, (says, how) in made.items():
        if args.only and name not in args.only:
            continue
        recipe = best(how, family) if isinstance(how, Grid) else learned(name, how, family)
        (args.out / f"{name}.yaml").write_text(written(recipe, says, family), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
