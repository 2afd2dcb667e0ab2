"""The points that a blend by angle works on: whole models, or their changes against a base."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.declarations.measures import Reader
from merging.declarations.values import Recipe
from merging.instructions import Outcome, Sum, grams


def gram_of(recipe: Recipe, reader: Reader) -> np.ndarray:
    """Inner products of one tensor of the recipe's models, or where a base is their origin of their
    changes. (n, n) float64."""
    gram = reader.gram()
    return (gram if recipe.origin else grams.of_models(gram))[1:, 1:]


def combined(recipe: Recipe, coefficients: Sequence[float]) -> Outcome:
    """The points times their coefficients, each rounded to float32 once, added up; beside the base
    where it is the origin."""
    weights = tuple(float(np.float32(one)) for one in coefficients)
    base = 1.0 if recipe.origin else float(np.float32(sum(coefficients)))
    return Outcome(Sum(weights), base_weight=base)
