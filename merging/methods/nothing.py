"""No pruning: every change is kept."""

from __future__ import annotations

from merging.declarations.laws import Law
from merging.declarations.measures import Reader
from merging.declarations.methods import Pruned, Pruner
from merging.declarations.values import Recipe
from merging.instructions import Keep


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Pruned:
    """Every expert keeps every change."""
    return Pruned([Keep()] * reader.experts)


METHODS = (
    Pruner(
        id="none",
        place=0,
        title="Nothing",
        summary="Keep every change.",
        formula="delta",
        words="Keep every change.",
        law=Law("all"),
        decide=decide,
        uniform=lambda recipe: True,
    ),
)
