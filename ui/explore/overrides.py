"""Values for a part of the model: rules with filters, written into the recipe and taken away again.

What is set here stands in the recipe, not in a control of its own: `ui.spelling` keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from merging.declarations.knobs import Knob
from merging.declarations.schedules import Rule, Schedule, is_number
from merging.errors import RecipeError
from merging.recipe import Recipe
from ui.explore.gradients import EVERY, drawable

_LONGEST = 300  # characters of a filter


def written(recipe: Recipe, text: str) -> Recipe:
    """A recipe with a value set for a part of the model, or without one that was.

    Args:
        text: JSON {"knob", "model", "filter", "value"}: the knob's name, a model or "*", part of
            tensors' names, and a number, or null to take the rule away.

    Raises:
        RecipeError: it is no such thing, or a value out of the knob's bounds.
    """
    try:
        edit = json.loads(text)
        name, model, part = str(edit["knob"]), str(edit["model"]), str(edit["filter"])
        value = None if edit["value"] is None else float(edit["value"])
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError("this is no value for a part of the model") from error
    knob = next((knob for knob in drawable(recipe) if knob.name == name), None)
    if knob is None or not 0 < len(part) <= _LONGEST or part == EVERY:
        raise RecipeError(f"{name} cannot be set for {part!r}")
    _check(knob, value)

    def change(schedule: Schedule) -> Schedule:
        others = tuple(rule for rule in schedule.rules if not _is_of(rule, part))
        return Schedule(others if value is None else (Rule(part, (value,)), *others))

    return _changed(recipe, knob, model, change)


def rules_of(recipe: Recipe, tensor: str) -> list[dict[str, Any]]:
    """The rules that this module writes and that hold for a tensor, first those that win.

    Returns:
        [{"knob", "label", "model", "filter", "value"}]; "model" is "" for a knob of the whole.
    """
    rules = []
    for knob in drawable(recipe):
        holders = (
            [(source.model, source.values[knob.name]) for source in recipe.sources]
            if knob.per_model
            else [("", recipe.parameters[knob.name])]
        )
        for model, schedule in holders:
            rules += [
                {
                    "knob": knob.name,
                    "label": knob.label,
                    "model": model,
                    "filter": rule.filter,
                    "value": rule.knots[0],
                }
                for rule in schedule.rules
                if _is_of(rule, rule.filter) and rule.filter in tensor
            ]
    return rules


def _is_of(rule: Rule, part: str) -> bool:
    """Whether a rule is one of this module's, for this part."""
    is_plain = rule.layers is None and not rule.shift and len(rule.knots) == 1
    return is_plain and rule.filter == part != EVERY and is_number(rule.knots[0])


def _check(knob: Knob, value: float | None) -> None:
    assert knob.low is not None
    high = float("inf") if knob.high is None else knob.high
    low, high = (float("-inf"), float("inf")) if knob.soft else (knob.low, high)
    if value is not None and not (low <= value <= high and abs(value) < float("inf")):
        raise RecipeError(f"{knob.label} lies between {knob.low:g} and {knob.high:g}")


def _changed(
    recipe: Recipe, knob: Knob, model: str, change: Callable[[Schedule], Schedule]
) -> Recipe:
    name = knob.name
    if not knob.per_model:
        changed = change(recipe.parameters[name])
        return replace(recipe, parameters={**recipe.parameters, name: changed})
    sources = tuple(
        replace(source, values={**source.values, name: change(source.values[name])})
        if model in (EVERY, source.model)
        else source
        for source in recipe.sources
    )
    return replace(recipe, sources=sources)
