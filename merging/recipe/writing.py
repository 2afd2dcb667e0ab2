"""A recipe as YAML, every default spelled out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from merging.declarations.methods import Blend
from merging.declarations.schedules import Schedule
from merging.declarations.values import Recipe
from merging.methods import RULES
from merging.recipe.reslicing import resliced


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default spelled out; `parse` gives the same recipe back. Its
    stages are documents of their own, before it."""
    return to_yaml(documents_of(recipe))


def to_yaml(documents: Sequence[Mapping[str, Any]]) -> str:
    """Documents of one file."""
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


def documents_of(recipe: Recipe) -> list[dict[str, Any]]:
    """The recipe's document, after those of its stages."""
    stages = [{"name": name, **_document(stage)} for name, stage in recipe.stages]
    return [*stages, _document(recipe)]


def _document(recipe: Recipe) -> dict[str, Any]:
    models = [
        {"model": source.model, "parameters": _plain(source.values)} for source in recipe.sources
    ]
    document: dict[str, Any] = {"merge_method": recipe.method}
    rule = RULES[recipe.consensus]
    if recipe.origin or not (isinstance(rule, Blend) and rule.base == "either"):
        document["base_model"] = recipe.base  # else naming it would make it the origin
    document["models"] = models
    document["parameters"] = {
        "prune": recipe.prune,
        "consensus": recipe.consensus,
        **_plain(recipe.parameters),
    }
    if recipe.dtype:
        document["dtype"] = recipe.dtype
    if recipe.tokenizer is not None:
        document["tokenizer_source"] = recipe.tokenizer
    if recipe.chat_template is not None:
        document["chat_template"] = recipe.chat_template
    if recipe.keep_base:
        document["keep_base"] = list(recipe.keep_base)
    return resliced(document, recipe.blueprint, recipe.layers)


def _plain(values: Any) -> dict[str, Any]:
    return {name: _yaml(value) for name, value in values.items()}


def _yaml(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.to_yaml()
    return list(value) if isinstance(value, tuple) else value
