"""The models that a recipe names, and the same recipe with other names for them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from merging.declarations.values import Recipe
from merging.errors import RecipeError, shown

_MOST_WRAPS = 4  # of a reference: {model: {model: {path: x}}}


def reference(value: Any, where: str) -> str:
    """A model's reference as a recipe holds it: text, or mergekit's {model: {path: text}}.

    Raises:
        RecipeError: it is none.
    """
    for _ in range(_MOST_WRAPS):
        if not isinstance(value, dict) or len({"model", "path"} & set(value)) != 1:
            break
        for key, setting in value.items():
            if key not in ("model", "path") and setting is not None:
                raise RecipeError(
                    f"{where}: {key} is not supported here; download or merge it, give its folder"
                )
        value = value.get("model", value.get("path"))
    if isinstance(value, bool | int | float):
        raise RecipeError(f"{where}: {shown(value)} is not text; put a folder's name in quotes")
    if not isinstance(value, str) or not value:
        raise RecipeError(f"{where}: model must be a folder, a Hub id or demo:NAME")
    if not value.isprintable():
        raise RecipeError(
            f"{where}: {shown(value)} holds a character that cannot be seen; type the name anew"
        )
    return value


def place_of(reference: str, folder: Path | None) -> str:
    """What tells a model from others: its folder where it is one, wherever links lead."""
    path = os.path.normpath((folder or Path.cwd()) / os.path.expanduser(reference))
    return os.path.realpath(path) if os.path.isdir(path) else os.path.normpath(reference)


def models_of(recipe: Recipe) -> tuple[str, ...]:
    """Every model of a recipe by its reference, the base first; of a stack the models that its
    layers come from."""
    if recipe.blueprint is not None:
        return recipe.blueprint.models
    return tuple(dict.fromkeys((recipe.base, *(source.model for source in recipe.sources))))


def with_models(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """The same recipe with other references.

    Args:
        names: for every one of `models_of`.
    """
    if recipe.blueprint is None:
        titles = [names[recipe.base], *(names[source.model] for source in recipe.sources)]
        blueprint = None
    else:
        blueprint = recipe.blueprint.with_models(names)
        titles = list(blueprint.titles(recipe.folder))
    sources = tuple(
        replace(source, model=title)
        for source, title in zip(recipe.sources, titles[1:], strict=True)
    )
    lines = {names.get(name, name): line for name, line in recipe.lines.items()}
    return replace(recipe, base=titles[0], sources=sources, blueprint=blueprint, lines=lines)
