"""What the controls spell as a recipe, and a recipe as values of the controls.

Values are by the names of `Controls.named`. A recipe that was opened may say more than controls
can: values that vary along the model or from expert to expert, a type, a tokenizer. That is kept,
knob by knob, until its control is moved (`kept`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import fmean
from typing import Any

from merging import recipe as recipes
from merging.declarations.knobs import Knob
from merging.declarations.methods import Blend, Method
from merging.declarations.schedules import Schedule, is_number
from merging.errors import RecipeError
from merging.methods import PRESETS, PRUNERS, RULES
from merging.recipe import Recipe, Source
from ui import controls
from ui.controls import MAX_EXPERTS

OPENED = "opened"
"""The control, unseen, that holds the recipe that was opened: its YAML, "" where there is none."""
MOST_CHARACTERS = 100_000
_MOST_RATE = 0.99  # of the slider


def to_recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe that the controls spell, with what they keep of the one that was opened.

    Raises:
        RecipeError: no experts, too many, or a value that no control can have.
    """
    recipe = _spelled(values)
    return kept(recipe, parsed(values[OPENED]), values) if values.get(OPENED) else recipe


@lru_cache(maxsize=64)
def parsed(text: str) -> Recipe:
    """An opened recipe. Raises RecipeError."""
    return recipes.parse(text)


def _spelled(values: Mapping[str, Any]) -> Recipe:
    """The recipe of the controls alone.

    Raises:
        RecipeError: no experts, too many, or a value that no control can have.
    """
    experts = values["experts"] or []
    if not values["base"] or not experts:
        raise RecipeError("choose a base and at least one expert")
    if len(experts) > MAX_EXPERTS:
        raise RecipeError(f"{len(experts)} experts are chosen; up to {MAX_EXPERTS} can be shown")
    prune, consensus = PRUNERS[values["prune"]], RULES[values["consensus"]]
    if isinstance(consensus, Blend):
        _check_count(consensus, len(experts))
    parameters: dict[str, Any] = {"prune": prune.id, "consensus": consensus.id}
    if controls.has(consensus, "lambda"):
        parameters["lambda"] = values["lambda"]
    for axis in (consensus, prune):  # the pruner's own value wins where both declare a knob
        for knob in axis.knobs:
            if f"{axis.id}.{knob.name}" in values:
                value = values[f"{axis.id}.{knob.name}"]
                parameters[knob.name] = min(value or 1, len(experts)) if knob.is_place else value
    shared: dict[str, Any] = {}
    if controls.has(prune, "density"):
        shared["density"] = round(1 - values["rate"], 6)
    if controls.has(prune, "amplification"):
        shared["amplification"] = [
            values[f"amplification.{k}"] for k in range(int(values["partitions"]))
        ]
    fallback = next(p.id for p in PRESETS.values() if prune.id == p.prune)
    method = controls.preset_of(prune.id, consensus.id) or fallback
    return recipes.build(
        method=method,
        base=values["base"],
        models=[
            (expert, {"weight": values[f"weight.{i}"], **shared})
            for i, expert in enumerate(experts)
        ],
        parameters=parameters,
    )


def _check_count(blend: Blend, experts: int) -> None:
    """Says in a screen's words that a blend takes another number of experts."""
    if blend.takes(experts):
        return
    numbers = [count for count in range(1, MAX_EXPERTS + 1) if blend.takes(count)]
    amount = "1 is" if experts == 1 else f"{experts} are"
    if experts < numbers[0]:
        wanted = f"at least {numbers[0]} experts"
    else:
        wanted = "1 expert" if numbers[-1] == 1 else f"{numbers[-1]} experts at most"
    raise RecipeError(f"{blend.title} takes {wanted}; {amount} chosen")


def values_of(recipe: Recipe, held: Mapping[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """A recipe as values of the controls; where it varies, about the middle of what it says.

    Args:
        held: the controls' values; those that the recipe says nothing of stay.
        order: ids of the models on offer, in the order in which experts are listed.

    Raises:
        RecipeError: no setting of the controls comes near it.
    """
    models = [source.model for source in recipe.sources]
    if reason := _unshowable(recipe, models):
        raise RecipeError(f"{reason}: merge it as it is")
    others = [model for model in models if model != recipe.base]
    experts = sorted(others, key=lambda model: order.index(model) if model in order else -1)
    by_model = {source.model: source for source in recipe.sources}
    shown: dict[str, Any] = {
        "base": recipe.base,
        "experts": experts,
        "prune": recipe.prune,
        "consensus": recipe.consensus,
    }
    densities = [_middle(source.density) for source in recipe.sources]
    if controls.has(PRUNERS[recipe.prune], "density"):
        shown["rate"] = round(min(1 - fmean(densities), _MOST_RATE), 6)
    if controls.has(PRUNERS[recipe.prune], "amplification"):
        factors = recipe.sources[0].amplification
        shown["partitions"] = len(factors)
        shown |= {f"amplification.{k}": factor for k, factor in enumerate(factors)}
    if "lambda" in recipe.parameters:
        shown["lambda"] = _middle(recipe.strength)
    for index, model in enumerate(experts):
        shown[f"weight.{index}"] = _middle(by_model[model].weight)
    for axis in (RULES[recipe.consensus], PRUNERS[recipe.prune]):
        for knob in controls.extra(axis):
            shown[f"{axis.id}.{knob.name}"] = _of_knob(recipe, knob, experts)
    return {**held, **shown}


def _unshowable(recipe: Recipe, models: Sequence[str]) -> str:
    """Why the controls cannot show a recipe; "" where they can."""
    if recipe.stages:
        return "it merges in several stages"
    if recipe.blueprint is not None:
        return "it stacks layers anew"
    if recipe.base in models and not isinstance(RULES[recipe.consensus], Blend):
        return "its base is one of the models that it merges"
    if set(models) <= {recipe.base}:
        return "it merges its base alone"
    if len(models) > MAX_EXPERTS:
        return f"it merges {len(models)} models, and the controls show {MAX_EXPERTS}"
    return ""


def _of_knob(recipe: Recipe, knob: Knob, experts: Sequence[str]) -> Any:
    if knob.per_model:
        values = [_middle(source.values[knob.name]) for source in recipe.sources]
        value = fmean(values) if all(map(is_number, values)) else values[0]
    else:
        value = _middle(recipe.parameters[knob.name])
    if knob.is_place and recipe.sources[int(value) - 1].model in experts:
        return experts.index(recipe.sources[int(value) - 1].model) + 1
    if is_number(value) and knob.low is not None and knob.high is not None:
        return type(knob.default)(min(max(value, knob.low), knob.high))
    return value


def _middle(value: Any) -> Any:
    """One value for all that a knob says: itself where it varies nowhere, else what holds where no
    filter speaks; of a gradient the middle."""
    if not isinstance(value, Schedule):
        return value
    if value.constant is not None:
        return value.constant
    last = value.rules[-1]
    knots: tuple[Any, ...] = last.knots if last.holds_everywhere else value.values
    return fmean(knots) if all(map(is_number, knots)) else knots[0]


def kept(recipe: Recipe, opened: Recipe, values: Mapping[str, Any]) -> Recipe:
    """A recipe with what the controls do not show of one that was opened.

    A knob keeps its value of then as long as its control stands where opening put it; the order of
    the models and what is said of the result as a whole stay in any case.

    Args:
        recipe: what the controls spell.
        values: those of the controls.
    """
    order = [source.model for source in recipe.sources]
    then = _spelled(values_of(opened, values, order))
    same_axes = (recipe.prune, recipe.consensus) == (opened.prune, opened.consensus)
    ours = {source.model: source for source in recipe.sources}
    put = {source.model: source for source in then.sources}
    if same_axes and recipe.base == opened.base:  # a blend may count its base, which has no control
        of_base = {source.model: source for source in opened.sources if source.model == opened.base}
        ours, put = of_base | ours, of_base | put
    sources = [
        _kept_source(ours[source.model], put[source.model], source, same_axes)
        for source in opened.sources
        if source.model in ours and source.model in put
    ]
    listed = {source.model for source in sources}
    sources += [source for model, source in ours.items() if model not in listed]
    parameters = dict(recipe.parameters)
    if same_axes:
        for name, value in parameters.items():
            if value == then.parameters.get(name) and name in opened.parameters:
                parameters[name] = opened.parameters[name]
        for knob in _places(recipe):  # counted in the order that the models are in now
            model = recipe.sources[recipe.parameters[knob] - 1].model
            parameters[knob] = [source.model for source in sources].index(model) + 1
    return replace(
        recipe,
        method=opened.method if same_axes else recipe.method,
        sources=tuple(sources),
        parameters=parameters,
        dtype=opened.dtype,
        chat_template=opened.chat_template,
        keep_base=opened.keep_base,
        layers=opened.layers,
        origin=opened.origin if same_axes and opened.base == recipe.base else recipe.origin,
    )


def _kept_source(now: Source, then: Source, opened: Source, same_axes: bool) -> Source:
    values = dict(now.values)
    for name, value in values.items():
        if (same_axes or name == "weight") and value == then.values.get(name):
            values[name] = opened.values.get(name, value)
    return replace(now, values=values, gives_tokenizer=opened.gives_tokenizer)


def _places(recipe: Recipe) -> list[str]:
    axes: tuple[Method, ...] = (PRUNERS[recipe.prune], RULES[recipe.consensus])
    return [knob.name for axis in axes for knob in axis.knobs if knob.is_place]


def unshown(values: Mapping[str, Any], called: Mapping[str, str] | None = None) -> list[str]:
    """What the recipe has that the controls do not show, a phrase each."""
    if not values.get(OPENED):
        return []
    return recipes.differences(_spelled(values), to_recipe(values), called)


def in_order(recipe: Recipe, experts: Sequence[str]) -> Recipe:
    """A recipe with its sources in the order of a sketch's experts, since plans match the two by
    position; a base among them first."""
    place = {model: number for number, model in enumerate(experts)}
    ordered = sorted(recipe.sources, key=lambda source: place.get(source.model, -1))
    return replace(recipe, sources=tuple(ordered))
