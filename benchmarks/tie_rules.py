"""Which of the equal changes at a cut should stay? Rules compared by score.

`python -m benchmarks.tie_rules --base BASE --experts EXPERT... --tasks FILE [--bfloat16]` merges a
family with DPPA (densities by outliers, K rings) under each rule and scores the results. All rules
prune the same linears at the same densities and amplify by the same factors; they differ in what
becomes of changes that equal a cut:

    drop        none stays (the authors' code)
    first       those with the lowest index stay
    spread      those with the lowest places stay (`selection.tied`, what Amalgam does)
    random      some stay, drawn without pattern
    scaled      all stay, each times the share that would have stayed
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from merging.recipe import Recipe, build
from merging.run.merge import merge
from merging.run.preflight import open_recipe
from merging.selection.tied import upper_places
from merging.trial.evaluate import evaluate

Rule = Callable[[torch.Tensor, Sequence[int], Sequence[float]], torch.Tensor]
"""(|delta|, entries in the nested rings, factors) -> the factor on every entry."""


def by_order(order: torch.Tensor) -> Callable[[torch.Tensor, Sequence[int]], torch.Tensor]:
    """Largest first, equal ones in the order given."""
    return lambda size: order[torch.sort(size[order], descending=True, stable=True).indices]


def factors_by_order(order_of: Callable[[int], torch.Tensor]) -> Rule:
    """Exactly as many as asked for."""

    def rule(size: torch.Tensor, counts: Sequence[int], factors: Sequence[float]) -> torch.Tensor:
        ranked = by_order(order_of(size.numel()))(size)
        gain = torch.zeros_like(size)
        start = 0
        for count, factor in zip(counts, factors, strict=True):
            gain[ranked[start:count]] = factor
            start = max(start, count)
        return gain

    return rule


def scaled(size: torch.Tensor, counts: Sequence[int], factors: Sequence[float]) -> torch.Tensor:
    """The mean factor of all that are equal: the change to be expected, and nothing chosen."""
    ranked = torch.sort(size, descending=True, stable=True).indices
    gain = factors_by_order(torch.arange)(size, counts, factors)[ranked].double()
    _, group = torch.unique_consecutive(size[ranked], return_inverse=True)
    sums = torch.zeros(int(group[-1]) + 1, dtype=torch.float64).index_add_(0, group, gain)
    result = torch.zeros_like(size)
    result[ranked] = (sums / torch.bincount(group))[group].float()
    return result


RULES: dict[str, Rule] = {
    "first": factors_by_order(torch.arange),
    "spread": factors_by_order(lambda count: upper_places(0, count, "cpu").argsort()),
    "random": factors_by_order(
        lambda count: torch.randperm(count, generator=torch.Generator().manual_seed(count))
    ),
    "scaled": scaled,
}


def nested_counts(recipe: Recipe) -> dict[str, list[list[int]]]:
    """Linear -> per expert, entries in its nested rings."""
    from merging.engines.eager import Stream
    from merging.run.lowering import lower

    family = open_recipe(recipe)
    densities = lower(recipe, Stream(family)).pruning.values
    linears = [entry for entry in family.merged if entry.place.is_linear]
    return {
        entry.name: [
            [int(share * entry.numel) for share in shares[entry.name]] for shares in densities
        ]
        for entry in linears
    }


def write_variant(source: Path, out: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A folder as `source`, with other tensors."""
    out.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and "index" not in path.name:
            (out / path.name).write_bytes(path.read_bytes())
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def load_folder(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def pruned_expert(
    base: dict[str, torch.Tensor],
    expert: dict[str, torch.Tensor],
    counts: dict[str, list[list[int]]],
    index: int,
    factors: Sequence[float],
    rule: Rule,
) -> dict[str, torch.Tensor]:
    """The expert with its linears' changes pruned by a rule, float32."""
    result = {}
    for name, start in base.items():
        delta = expert[name].float() - start.float()
        if name in counts:
            gain = rule(delta.abs().flatten(), counts[name][index], factors)
            delta = delta * gain.reshape(delta.shape)
        result[name] = start.float() + delta
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True, type=Path)
    parser.add_argument("--experts", required=True, nargs="+", type=Path)
    parser.add_argument("--tasks", type=Path, help="a task file; the built-in tasks if absent")
    parser.add_argument("--domains", nargs="+")
    parser.add_argument("--n", type=int, default=50, help="prompts per domain (50)")
    parser.add_argument("--densities", nargs="+", type=float, default=[0.1, 0.2, 0.3])
    parser.add_argument("--amplification", nargs="+", type=float, default=[1.8, 1.0])
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--scale-dense", default="one", choices=("one", "none"))
    parser.add_argument("--bfloat16", action="store_true", help="round the family first")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        compare(args, Path(scratch))


def compare(args: argparse.Namespace, scratch: Path) -> None:
    base, *experts = folders = [args.base, *args.experts]
    if args.bfloat16:
        for index, folder in enumerate(folders):
            rounded = {name: one.bfloat16() for name, one in load_folder(folder).items()}
            write_variant(folder, scratch / f"rounded-{index}-{folder.name}", rounded)
            folders[index] = scratch / f"rounded-{index}-{folder.name}"
        base, *experts = folders
    for density in args.densities:
        parameters = {"amplification": args.amplification, "scale_dense": args.scale_dense}

        def recipe(rule: str, density: float = density, knobs: dict = parameters) -> Recipe:
            models = [(str(one), {"density": density, "weight": args.weight}) for one in experts]
            return build(
                method="dppa",
                base=str(base),
                models=models,
                folder=Path.cwd(),
                parameters={**knobs, "tie_rule": rule},
            )

        outs = {"drop": scratch / f"drop-{density}"}
        merge(recipe("drop"), outs["drop"], device="cpu")
        counts = nested_counts(recipe("spread"))
        start = load_folder(base)
        for name, rule in RULES.items():
            total = {key: one.float() for key, one in start.items()}
            for index, expert in enumerate(experts):
                pruned = pruned_expert(
                    start, load_folder(expert), counts, index, args.amplification, rule
                )
                for key, value in pruned.items():
                    if key in counts or args.scale_dense == "one":
                        total[key] += args.weight * (value - start[key].float())
            outs[name] = scratch / f"{name}-{density}"
            write_variant(base, outs[name], {k: v.to(start[k].dtype) for k, v in total.items()})
        for name, out in outs.items():
            scores = evaluate(
                {name: out}, domains=args.domains, n=args.n, split="validation", tasks=args.tasks
            )["scores"][name]
            shares = [100 * score["score"] for score in scores.values()]
            row = " | ".join(f"{share:.0f}" for share in shares)
            print(f"| {density:g} | {name} | {row} | {np.mean(shares):.1f} |", flush=True)


if __name__ == "__main__":
    main()
