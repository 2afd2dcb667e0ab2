"""The models of a recipe: which ones, the base among them, and whose tokenizer the result gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from merging.declarations.methods import Blend, Consensus
from merging.declarations.schedules import MAX_RULES
from merging.errors import RecipeError, shown
from merging.recipe.references import place_of, reference
from merging.recipe.slices import check_count, parameters_in
from merging.recipe.stray import unknown
from merging.system.lines import line_in, within

Models = list[tuple[str, dict[str, Any]]]
"""References and their own parameters, in order."""


def listed(value: Any) -> Models:
    """The models of `models:`. Raises RecipeError."""
    if not isinstance(value, list) or not value:
        raise RecipeError("models: list at least one model to merge")
    check_count(len(value))
    models: Models = []
    for index, item in enumerate(value):
        with within(value, index):
            models.append(_listed(item, f"models[{index}]"))
            name = models[-1][0]
            if any(name == other for other, _ in models[:-1]):
                raise RecipeError(f"models: {name} is listed twice; give it once, with its weight")
    return models


def _listed(item: Any, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(item, str):
        item = {"model": item}
    if not isinstance(item, dict) or "model" not in item:
        raise RecipeError(f"{where}: needs model: and its parameters:")
    for key in item:
        if key not in ("model", "parameters"):
            raise unknown(key, where, ("model", "parameters"))
    with within(item, "model"):
        name = reference(item["model"], where)
    with within(item, "parameters"):
        return name, parameters_in(item.get("parameters"), where)


def base_of(value: Any, method: str, rule: Consensus | Blend, models: Models) -> str:
    """The base's reference: where none is named and none is needed, the first model's."""
    if value is not None:
        return reference(value, "base_model")
    if isinstance(rule, Blend) and rule.base != "origin":
        return models[0][0]
    raise RecipeError(f"base_model is missing; {method} counts changes from a base")


def by_one_name(models: Models, base: str, folder: Path | None, listed: Any = None) -> Models:
    """The models, the base among them by the name that base_model gives it.

    Args:
        listed: where they come from: the list that the recipe has under models.

    Raises:
        RecipeError: two names are one folder's.
    """
    places = {place_of(base, folder): base}
    named: Models = []
    for index, (name, values) in enumerate(models):
        first, line = places.setdefault(place_of(name, folder), name), line_in(listed, index)
        if first not in (name, base):
            raise RecipeError(f"models: {first} and {name} are one folder; give it once", line=line)
        if first == base and any(other == base for other, _ in named):
            raise RecipeError(
                f"models: {base} is listed twice; give it once, with its weight", line=line
            )
        named.append((first, values))
    return named


def tokenizer(
    document: Mapping[str, Any], models: Sequence[str], folder: Path | None
) -> str | None:
    """The model whose tokenizer is asked for, as the recipe calls it; None for the base, which is
    the first."""
    asked, where = document.get("tokenizer_source"), "tokenizer_source"
    if "tokenizer" in document and document["tokenizer"] is not None:
        if asked is not None:
            raise RecipeError("tokenizer: give tokenizer or tokenizer_source, not both")
        value, where = document["tokenizer"], "tokenizer"
        if not isinstance(value, dict) or set(value) - {"source"}:
            raise RecipeError(
                "tokenizer: only source: is supported; tokens cannot be set one by one"
            )
        asked = value.get("source")
    if asked in (None, "base"):
        return None
    if asked == "union":
        raise RecipeError(
            f"{where}: union is not supported yet: vocabularies are not merged; leave it out (the "
            "base's tokenizer, and the rows that all share), or name an expert whose ids agree"
        )
    place = place_of(reference(asked, where), folder)
    for name in models:
        if place == place_of(name, folder):
            return None if name == models[0] else name
    raise RecipeError(
        f"{where}: {shown(asked)} is none of this recipe's models; name the base or an expert"
    )


def keep_base(value: Any) -> tuple[str, ...]:
    """Parts of tensors' names."""
    parts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(parts, list) or not all(isinstance(part, str) and part for part in parts):
        raise RecipeError("keep_base: list parts of tensors' names, such as [lm_head, mlp.experts]")
    if len(parts) > MAX_RULES:
        raise RecipeError(f"keep_base: {len(parts)} parts are given, at most {MAX_RULES} are read")
    return tuple(dict.fromkeys(parts))
