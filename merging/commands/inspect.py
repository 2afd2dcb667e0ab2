"""`inspect BASE EXPERT...`: statistics of every expert's changes."""

from __future__ import annotations

import argparse
from typing import Any

from merging.console import Bar, command, print_json


def declare(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = command(commands, "inspect", run, "statistics of every expert's changes")
    parser.add_argument("base", help="a folder, a Hub id or demo:NAME")
    parser.add_argument("experts", nargs="+", metavar="expert")


def run(args: argparse.Namespace) -> int:
    """Scans the family and prints a table per expert."""
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
