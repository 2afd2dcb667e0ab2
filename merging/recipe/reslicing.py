"""Values by slices, and a recipe written in slices again.

What slices say is one schedule per value, of rules for the layers of one slice after the other. The
way back takes these apart, so that a recipe that is written and read again is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from merging.declarations.blueprints import Blueprint, Column, Piece
from merging.declarations.schedules import Rule, Schedule, constant
from merging.declarations.values import Recipe


def by_slice(
    schedule: Schedule, spans: Sequence[tuple[int, int]], column: Column = (), *, fills: bool = True
) -> Schedule:
    """A schedule as rules for the layers of each slice, in order: a gradient runs over one slice.

    One meaning has one form: a value where it is one everywhere. With one slice or none it is the
    schedule itself, its filters looked for in the model's own names.

    Args:
        column: of the model whose value it is; none for a value of all models.
        fills: True where another slice's value may stand in a gap. Weights, which are 0 there,
            need none.
    """
    shifts = _shifts(spans, column)
    if len(spans) < 2:
        return Schedule(_shifted(schedule.rules, *shifts))
    parts = [
        _shifted(_inside(schedule, span), shift) for span, shift in zip(spans, shifts, strict=True)
    ]
    if fills and None in column:
        listed = next(index for index, piece in enumerate(column) if piece is not None)
        anything = parts[listed][-1].knots[:1]
        for index, piece in enumerate(column):
            if piece is None:
                parts[index] = (Rule("*", anything, spans[index]),)
    if all(len(part) == 1 and part[0].knots == parts[0][0].knots for part in parts):
        (first,) = parts[0]
        if len(first.knots) == 1:
            return constant(first.knots[0])
    rules = [rule for part in parts for rule in part]
    return Schedule((*rules, Rule("*", rules[-1].knots[-1:])))


def along_slices(recipe: Recipe, spans: Sequence[tuple[int, int]]) -> Recipe:
    """A recipe with all that may change along the model `by_slice`."""
    if not spans:
        return recipe

    def held(values: Mapping[str, Any], column: Column) -> dict[str, Any]:
        return {
            name: by_slice(value, spans, column, fills=name != "weight")
            if isinstance(value, Schedule)
            else value
            for name, value in values.items()
        }

    columns = recipe.blueprint.sources if recipe.blueprint else [()] * len(recipe.sources)
    sources = tuple(
        replace(source, values=held(source.values, column))
        for source, column in zip(recipe.sources, columns, strict=True)
    )
    return replace(recipe, sources=sources, parameters=held(recipe.parameters, ()))


def _shifts(spans: Sequence[tuple[int, int]], column: Column) -> list[int]:
    """Of every slice: what leads from a layer's number in the result to that in the model."""
    if not column:
        return [0] * len(spans)
    return [
        piece.start - span[0] if piece else 0 for piece, span in zip(column, spans, strict=True)
    ]


def _shifted(rules: Sequence[Rule], shift: int) -> tuple[Rule, ...]:
    """Rules whose filters are looked for in the names that layers have in their model."""
    return tuple(rule if rule.filter == "*" else rule._replace(shift=shift) for rule in rules)


def resliced(
    document: Mapping[str, Any], blueprint: Blueprint | None, layers: int | None
) -> dict[str, Any]:
    """A recipe's document, whose models are listed under models, in slices again.

    Args:
        blueprint: None for one slice of whole models, which have `layers` layers.
        layers: None for whole models without slices.
    """
    if layers is None:
        return dict(document)
    models, parameters = document["models"], dict(document["parameters"])
    if blueprint is None:
        pieces = [(Piece(one["model"], 0, layers), one.get("parameters", {})) for one in models]
        slices: list[dict[str, Any]] = [
            {"sources": [_source(piece, values) for piece, values in pieces]}
        ]
    else:
        slices = [_sliced(models, blueprint, index) for index in range(len(blueprint.spans))]
        for key in [key for key, value in parameters.items() if _has_layers(value)]:
            if len(slices) > 1:
                value = parameters.pop(key)
                for one, span in zip(slices, blueprint.spans, strict=True):
                    one.setdefault("parameters", {})[key] = _of_slice(value, span)
    result: dict[str, Any] = {}
    for key, value in document.items():
        result |= {"slices": slices} if key == "models" else {key: value}
    result["parameters"] = parameters
    if blueprint is not None and "base_model" in result:
        result["base_model"] = blueprint.base[0].model
    return result


def _inside(schedule: Schedule, span: tuple[int, int]) -> list[Rule]:
    """The rules that hold for the layers of one slice, until one holds for all of them."""
    rules: list[Rule] = []
    for rule in schedule.rules:
        start, stop = rule.layers or span
        start, stop = max(start, span[0]), min(stop, span[1])
        if start < stop:
            rules.append(rule._replace(layers=(start, stop)))
            if rule.filter == "*" and (start, stop) == span:
                break
    return rules


def _has_layers(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(rule, dict) and "layers" in rule for rule in value
    )


def _of_slice(value: Any, span: tuple[int, int]) -> Any:
    """What a value, written out for every slice, is in one of them."""
    if not _has_layers(value):
        return value
    rules = []
    for rule in value:
        start, stop = rule.get("layers", (0, 0))
        if span[0] <= start < stop <= span[1]:
            held = {} if (start, stop) == span else {"layers": [start, stop]}
            rules.append({**{k: rule[k] for k in rule if k != "layers"}, **held})
    return rules[0]["value"] if len(rules) == 1 and list(rules[0]) == ["value"] else rules


def _sliced(
    models: Sequence[Mapping[str, Any]], blueprint: Blueprint, index: int
) -> dict[str, Any]:
    """One slice of a recipe's document."""
    base = blueprint.base[index]
    sources = []
    for one, column in zip(models, blueprint.sources, strict=True):
        piece = column[index]
        if piece is not None:
            own = one.get("parameters", {})
            if len(blueprint.spans) > 1:
                own = {k: _of_slice(value, blueprint.spans[index]) for k, value in own.items()}
            sources.append(_source(piece, own))
    ranges = {source["layer_range"][0] for source in sources}
    if ranges != {base.start} and not any(column[index] == base for column in blueprint.sources):
        sources.append(_source(base, {}))
    result: dict[str, Any] = {"sources": sources}
    if base.model != blueprint.base[0].model:
        result["base_model"] = base.model
    return result


def _source(piece: Piece, values: Mapping[str, Any]) -> dict[str, Any]:
    source = {"model": piece.model, "layer_range": [piece.start, piece.stop]}
    return {**source, "parameters": dict(values)} if values else source
