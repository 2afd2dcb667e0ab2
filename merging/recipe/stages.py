"""Recipes that use each other's results: several documents of one file, each with its name.

As mergekit's `mergekit-multi` reads them: a model called as another document is that document's
result. One is the last, which no other uses; it alone may go without a name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from merging.declarations.values import Recipe
from merging.errors import RecipeError, shown
from merging.recipe.references import models_of
from merging.recipe.values import nearest

MAX_STAGES = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")  # a folder gets it
_LAST = "the last recipe"


def staged(documents: Sequence[tuple[object, Recipe]], folder: Path | None) -> Recipe:
    """The last of several recipes, with those whose results it needs.

    Args:
        documents: the value of `name:` (None without one), and the recipe.
        folder: that relative references are read against.

    Raises:
        RecipeError: a name is given twice or is none, recipes use each other in a circle, or more
            than one is the last.
    """
    if len(documents) > MAX_STAGES:
        raise RecipeError(f"{len(documents)} recipes are given, at most {MAX_STAGES} are read")
    recipes: dict[str, Recipe] = {}
    for name, recipe in documents:
        title = _LAST if name is None else _checked(name)
        if title in recipes:
            twice = f"name: {title} is given twice; the results would be one"
            raise RecipeError(_two("which have no name") if name is None else twice)
        recipes[title] = recipe
    needs = {name: _needs(name, recipe, recipes, folder) for name, recipe in recipes.items()}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise RecipeError(f"recipes use each other in a circle: {circle}; take one out") from None
    last = [name for name in recipes if not any(name in used for used in needs.values())]
    if len(last) > 1:
        raise RecipeError(_two(f"{' and '.join(last)}, which no other uses"))
    for name in order:  # each with those that it needs, and that they need
        used = {one for need in needs[name] for one in (need, *dict(recipes[need].stages))}
        stages = tuple((one, recipes[one]) for one in order if one in used)
        recipes[name] = replace(recipes[name], stages=stages)
    return recipes[last[0]]


def needed_by(recipe: Recipe, stages: Mapping[str, object]) -> list[str]:
    """The stages whose results a recipe names."""
    return [model for model in models_of(recipe) if model in stages]


def _checked(name: object) -> str:
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise RecipeError(
        f"name: {shown(name)}: a recipe that others use is called with letters, digits, dots and "
        "dashes, as a folder is"
    )


def _needs(
    name: str, recipe: Recipe, recipes: Mapping[str, Recipe], folder: Path | None
) -> list[str]:
    """The stages that a recipe uses. Raises RecipeError for a name that no stage has."""
    for model in models_of(recipe):
        is_word = _NAME.fullmatch(model) is not None
        if model not in recipes and is_word and not os.path.isdir((folder or Path.cwd()) / model):
            named = [one for one in recipes if one not in (_LAST, name)]
            raise RecipeError(
                f"{name}: {model} is neither a folder nor the name of a recipe here"
                f"{nearest(model, named)}"
            )
    return needed_by(recipe, recipes)


def _two(which: str) -> str:
    return f"the recipes have two results: {which}; give one name: and use it in the other"
