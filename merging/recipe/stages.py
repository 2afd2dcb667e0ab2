"""Recipes that use each other's results: several documents of one file, each with its name.

As mergekit's `mergekit-multi` reads them: a model called as another document is that document's
result. The document without a name is the recipe itself; where all have names, the last one that no
other uses. What others do not use and the recipe does not need is a result of its own: mergekit
merges it into the folder of named results, and so it is here where there is such a folder.
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
from merging.system.lines import at_line

MAX_STAGES = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")  # a folder gets it
_LAST = "the last recipe"
_UNNAMED = (
    "two recipes have no name, so there are two results; give one name: and use it in the other"
)


def staged(documents: Sequence[tuple[object, Recipe]], folder: Path | None) -> Recipe:
    """The recipe that several documents make: one of them, with the others as its stages.

    Args:
        documents: the value of `name:` (None without one), and the recipe.
        folder: that relative references are read against.

    Raises:
        RecipeError: a name is given twice or is none, two have none, or recipes use each other in
            a circle.
    """
    if len(documents) > MAX_STAGES:
        raise RecipeError(f"{len(documents)} recipes are given, at most {MAX_STAGES} are read")
    recipes: dict[str, Recipe] = {}
    for name, recipe in documents:
        with at_line(_line(recipe)):
            title = _LAST if name is None else _checked(name)
            if title in recipes:
                twice = f"name: {title} is given twice; the results would be one"
                raise RecipeError(_UNNAMED if name is None else twice)
        recipes[title] = recipe
    needs = {name: _needs(name, recipe, recipes, folder) for name, recipe in recipes.items()}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise RecipeError(
            f"recipes use each other in a circle: {circle}; take one out",
            line=_line(recipes[error.args[1][-1]]),
        ) from None
    free = [name for name in recipes if not any(name in used for used in needs.values())]
    last = _LAST if _LAST in recipes else free[-1]
    for name in order:  # each with those that it needs, and that they need
        used = {one for need in needs[name] for one in (need, *dict(recipes[need].stages))}
        if name == last:
            used = set(recipes) - {last}
        stages = tuple((one, recipes[one]) for one in order if one in used and one != name)
        recipes[name] = replace(recipes[name], stages=stages)
    notes = tuple(
        f"{name}: its result is used by no other recipe here, so it is merged only where named "
        "results are kept: amalgam merge --intermediate-dir FOLDER"
        for name in free
        if name != last
    )
    if last != _LAST and notes:
        notes = (f"{last} is the result: of those that no other uses, the last", *notes)
    return replace(recipes[last], notes=(*recipes[last].notes, *notes))


def needed(recipe: Recipe) -> Recipe:
    """The recipe with only those stages that its result depends on."""
    stages = dict(recipe.stages)
    waiting, used = needed_by(recipe, stages), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting += needed_by(stages[name], stages)
    due = tuple(stage for stage in recipe.stages if stage[0] in used)
    return recipe if len(due) == len(stages) else replace(recipe, stages=due)


def needed_by(recipe: Recipe, stages: Mapping[str, object]) -> list[str]:
    """The stages whose results a recipe names."""
    return [model for model in models_of(recipe) if model in stages]


def _line(recipe: Recipe) -> int | None:
    """Of a recipe's name, or else of where it begins."""
    return recipe.lines.get("name") or min(recipe.lines.values(), default=None)


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
                f"{nearest(model, named)}",
                line=recipe.lines.get(model),
            )
    return needed_by(recipe, recipes)
