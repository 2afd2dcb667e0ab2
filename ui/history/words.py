"""Recipes of the history in the words of lists: models by their labels, wherever they lie."""

from __future__ import annotations

from merging import recipe as recipes
from merging.methods import PRESETS
from merging.recipe import Recipe
from merging.recipe.references import with_models
from ui.library import Library


def described(library: Library, recipe: Recipe) -> str:
    """A recipe in words."""
    return recipes.describe(recipe, library.called(recipe))


def method(recipe: Recipe) -> str:
    """What its method is called."""
    return PRESETS[recipe.method].title


def differences(library: Library, first: Recipe, second: Recipe) -> list[str]:
    """What the second has otherwise, a phrase each, however either names its models."""
    one, other = (with_models(recipe, library.called(recipe)) for recipe in (first, second))
    return recipes.differences(one, other)
