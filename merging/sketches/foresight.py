"""What the preflight can say of a family that was scanned before: how much will be kept."""

from __future__ import annotations

from pathlib import Path

from merging.checkpoints import Family
from merging.declarations.retention import CAUSES
from merging.kinship.problem import Problem
from merging.methods import PRUNERS
from merging.recipe import Recipe
from merging.sketches.plan import Plan, plan

_LEAST = 5e-3  # of the entries: predictions are not exact


def foresee(recipe: Recipe, family: Family, sketches: Path) -> list[Problem]:
    """A note where another share of the changes will be kept than was asked for.

    Args:
        sketches: folder of sketches kept by scans; without the family's only what the recipe says
            by itself is told.
    """
    if PRUNERS[recipe.prune].law.order != "largest":
        return []
    planned = _planned(recipe, family, sketches)
    if planned is None:
        drops = recipe.parameters.get("tie_rule") == "drop"
        message = (
            "tie_rule: drop drops every change that equals a cut, so fewer are kept than asked "
            "for; between bfloat16 models most changes equal others. inspect tells how many"
        )
        return [Problem("note", "tie_rule", message)] if drops else []
    asked, share = planned.summary["asked"], planned.summary["entries"]
    if abs(share - asked) < _LEAST:
        return []
    cause = max(planned.causes, key=lambda name: abs(planned.causes[name]))
    message = (
        f"asked for {100 * asked:.3g} % of the entries, about {100 * share:.3g} % are kept: "
        f"{CAUSES[cause]}"
    )
    return [Problem("note", "density", message)]


def _planned(recipe: Recipe, family: Family, sketches: Path) -> Plan | None:
    if not any(sketches.glob("*.npz")):
        return None
    from merging.sketches.scan import cached

    sketch = cached(family, sketches)
    return None if sketch is None else plan(recipe, sketch)
