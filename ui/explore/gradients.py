"""Values over depth: a knob that may vary along the model, as points that can be dragged.

What is drawn is a list of knots, spread evenly over the layers, as mergekit's gradients are. It
stands in the recipe, not in a control of its own: `ui.spelling` keeps it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr

from merging.declarations.knobs import Knob
from merging.declarations.schedules import Rule, Schedule, is_number
from merging.errors import RecipeError
from merging.methods import PRUNERS, RULES
from merging.recipe import Recipe

MOST_KNOTS = 16
EVERY = "*"
"""All models."""
_ON_LOAD = """
const mount = () => window.amalgamGradient
  ? window.amalgamGradient.mount(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers 'input' when a point was moved
"""
_TEMPLATE = (
    "<div class='gradient'><label>Value <select></select></label>"
    "<svg role='group' aria-label='Value over depth'></svg>"
    "<p class='quiet' role='status'></p><div class='gradient-verbs'>"
    "<button type='button' data-act='fewer'>Fewer points</button>"
    "<button type='button' data-act='more'>More points</button>"
    "<button type='button' data-act='flat'>Same everywhere</button></div></div>"
)


class Gradient(gr.HTML):
    """The editor. Its value is JSON: what the server says (`facts`), or what a person drew
    (`drawn`)."""

    def __init__(self, value: str = "", **arguments: Any) -> None:
        arguments.setdefault("html_template", _TEMPLATE)
        arguments.setdefault("js_on_load", _ON_LOAD)
        arguments.setdefault("apply_default_css", False)
        super().__init__(value, **arguments)


def facts(recipe: Recipe, n_layers: int, called: Mapping[str, str]) -> str:
    """What the editor shows of a recipe: every knob that it can draw, and its knots.

    Args:
        n_layers: of the base.
        called: what models are called, by reference.

    Returns:
        JSON: {"layers", "knobs": [{"id": [knob, model], "label", "low", "high", "step", "knots",
        "mixed"}]}. "mixed": it varies by more than depth, so a drawing would replace that.
    """
    knobs = []
    for knob in drawable(recipe):
        if not knob.per_model:
            knobs.append(_fact(knob, "", knob.label, [recipe.parameters[knob.name]]))
            continue
        values = [source.values[knob.name] for source in recipe.sources]
        if len(values) > 1:
            knobs.append(_fact(knob, EVERY, f"{knob.label} of all", values))
        for source, value in zip(recipe.sources, values, strict=True):
            label = f"{knob.label} of {called.get(source.model, source.model)}"
            knobs.append(_fact(knob, source.model, label, [value]))
    return json.dumps({"layers": n_layers, "knobs": knobs})


def drawable(recipe: Recipe) -> list[Knob]:
    """The knobs of a recipe that are numbers and may vary along the model."""
    axes = (*RULES[recipe.consensus].knobs, *PRUNERS[recipe.prune].knobs)
    return [
        knob
        for knob in {knob.name: knob for knob in axes}.values()
        if knob.scheduled and type(knob.default) is float and knob.low is not None
    ]


def _fact(knob: Knob, model: str, label: str, values: list[Schedule]) -> dict[str, Any]:
    plain = [_knots(value) for value in values]
    alike = plain[0] is not None and all(one == plain[0] for one in plain)
    knots = plain[0] if alike and plain[0] else [_middle(values)]
    return {
        "id": [knob.name, model],
        "label": label,
        "low": min(knob.low or 0.0, *knots),
        "high": max(knob.high if knob.high is not None else 1.0, *knots),
        "step": knob.step or 0.01,
        "knots": [round(knot, 6) for knot in knots],
        "mixed": not alike,
    }


def _knots(value: Schedule) -> list[float] | None:
    """The knots of a schedule that is one line over depth; None for other ones."""
    first = value.rules[0]
    if not first.holds_everywhere or not all(map(is_number, first.knots)):
        return None
    return [float(knot) for knot in first.knots]


def _middle(values: list[Schedule]) -> float:
    knots = [knot for value in values for knot in value.values if is_number(knot)]
    return sum(map(float, knots)) / max(len(knots), 1)


def drawn(recipe: Recipe, text: str) -> Recipe:
    """A recipe with what a person drew.

    Args:
        text: JSON {"id": [knob, model], "knots"}.

    Raises:
        RecipeError: it is nothing that the editor draws, or a value out of the knob's bounds.
    """
    try:
        edit = json.loads(text)
        (name, model), knots = edit["id"], [float(knot) for knot in edit["knots"]]
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError("this is no drawing of a value over depth") from error
    knob = next((knob for knob in drawable(recipe) if knob.name == name), None)
    if knob is None or not 1 <= len(knots) <= MOST_KNOTS:
        raise RecipeError(f"{name} over depth has 1 to {MOST_KNOTS} points here")
    assert knob.low is not None and knob.high is not None
    if not knob.soft and not all(knob.low <= knot <= knob.high for knot in knots):
        raise RecipeError(f"{name} lies between {knob.low:g} and {knob.high:g}")
    schedule = Schedule((Rule("*", tuple(knots)),))
    if not knob.per_model:
        return replace(recipe, parameters={**recipe.parameters, name: schedule})
    sources = tuple(
        replace(source, values={**source.values, name: schedule})
        if model in (EVERY, source.model)
        else source
        for source in recipe.sources
    )
    return replace(recipe, sources=sources)
