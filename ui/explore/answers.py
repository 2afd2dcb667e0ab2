"""What Explore answers: the recipe that the controls spell, and lists and values that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from merging import recipe as recipes
from merging.declarations.methods import Blend
from merging.errors import MergeError, RecipeError
from merging.methods import RULES
from ui import controls, figures, spelling
from ui.controls import MAX_EXPERTS, MAX_PARTITIONS
from ui.explore import arrival, opening, pairing, view
from ui.library import Library


def spelled(library: Library, values: dict[str, Any], weighed: Sequence[str]) -> str:
    """The YAML of the recipe that the controls spell now.

    Args:
        weighed: as `changed`.

    Raises:
        MergeError: they spell none.
    """
    values = view.ordered(library, values)
    choice = pairing.fitted(pairing.choice_of(values))
    values |= {**pairing.values_of(choice), **values_of(values, weighed, choice.experts)}
    return recipes.dump(spelling.to_recipe(values))


def unspelled(error: MergeError) -> str:
    """What stands in place of a recipe where the controls spell none: nothing older."""
    return f"# {error}\n"


def foreseen(library: Library, values: dict[str, Any], weighed: Sequence[str]) -> Any:
    """What arrives (`arrival.foreseen`); nothing while something else is about to be shown."""
    asked = dict(values)
    try:
        values = view.ordered(library, values)
        if not is_settled(values, weighed):
            return gr.skip()
        recipe = spelling.to_recipe(values)
        ordered = spelling.in_order(recipe, values["experts"])
        if ordered != recipe and isinstance(RULES[recipe.consensus], Blend):
            raise RecipeError("Not predicted: the opened recipe blends its models in another order")
        sketch = library.sketch(values["base"], values["experts"])
    except MergeError as error:
        return {**arrival.panel(), "note": f"{error}.", "asked": asked}
    return arrival.foreseen(ordered, sketch, values)


def settled(library: Library, values: dict[str, Any], weighed: Sequence[str]) -> list[Any]:
    """Exact numbers, the recipe, its words and the partitions' labels.

    Nothing while another family is about to be shown, since its own numbers come with it, nor while
    one axis is about to follow the other.
    """
    try:
        values = view.ordered(library, values)
        if not is_settled(values, weighed):
            return [gr.skip()] * (3 + MAX_PARTITIONS)
        recipe = spelling.to_recipe(values)
        sketch = library.sketch(values["base"], values["experts"])
        numbers = view.numbers(library, recipe, sketch, values)
    except MergeError as error:  # in its place on the page: a plain request carries no toasts
        return [view.unplanned(str(error)), unspelled(error), "", *[gr.skip()] * MAX_PARTITIONS]
    count = int(values["partitions"])
    labels = controls.amplification_labels(values["rate"], count)
    updates = [gr.update(label=label) for label in labels]
    updates += [gr.skip()] * (MAX_PARTITIONS - count)
    return [*numbers, *updates]


def is_settled(values: Mapping[str, Any], weighed: Sequence[str]) -> bool:
    """False while another family is about to be shown, and while one axis is about to follow the
    other. `values`: as `view.ordered` gives them."""
    choice = pairing.choice_of(values)
    return values["experts"] == list(weighed) and pairing.fitted(choice) == choice


def values_of(
    values: dict[str, Any], before: Sequence[str], after: Sequence[str]
) -> dict[str, Any]:
    """What belongs to experts, for others than before: the weights of those that stay, 1 of new
    ones; the places of those that were chosen, the first where they are gone."""
    weights = {model: values[f"weight.{index}"] for index, model in enumerate(before)}
    models = [*after, *[""] * MAX_EXPERTS][:MAX_EXPERTS]
    owned = {f"weight.{index}": weights.get(model, 1.0) for index, model in enumerate(models)}
    for name in controls.places():
        place = values[name] or 1
        chosen = before[place - 1] if place <= len(before) else ""
        owned[name] = models.index(chosen) + 1 if chosen in after else 1
    return owned


def places_of(values: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """The choices among experts by name. `names`: of those chosen, in order."""
    choices = controls.by_place(names)
    return [gr.update(choices=choices, value=values[name]) for name in controls.places()]


def paired(
    library: Library, values: Mapping[str, Any], aside: pairing.Aside, by: str, times: int = 0
) -> list[Any]:
    """Both axes and the experts after one of them was chosen.

    Args:
        values: prune, consensus and experts, as the controls have them.
        by: what was chosen: prune, consensus or preset, which sets both.
        times: how often a choice led to other experts.

    Returns:
        The pruner, the rule, the experts, what is set aside, a remark on it, and how often a
        choice led to other experts now.
    """
    order = [model.id for model in library.models()]
    experts = sorted(values["experts"] or (), key=order.index)
    before = pairing.choice_of({**values, "experts": experts})
    if by == "preset":
        aside = replace(aside, prune="")
    step = pairing.on_pruner if by == "prune" else pairing.on_rule
    after, aside = step(before, aside)
    names = {model: figures.short(library.get(model).label) for model in order}
    is_same = after.experts == before.experts
    return [
        after.prune,
        after.consensus,
        gr.skip() if is_same else list(after.experts),
        aside,
        escape(pairing.remark(before, after, names)),
        gr.skip() if is_same else times + 1,
    ]


def rebased(library: Library, base: str, chosen: Sequence[str] | None) -> Any:
    """The experts to choose from under another base: those chosen stay where they may fit it."""
    root = library.get(base)
    offered = controls.offered(view.choices(library), root.id)
    misfits = library.misfits(root.id)
    fitting = [m for _, m in offered if m in (chosen or ()) and m not in misfits]
    return view.experts_of(library, root.id, value=fitting)


def listed(library: Library, base: str) -> list[Any]:
    """Base, Experts and the recipes to open, with the models that are on offer now. What is chosen
    stays, also where it is gone: reading it says so."""
    experts = view.experts_of(library, base)
    return [
        gr.update(choices=view.choices(library)),
        experts,
        gr.update(choices=opening.choices(library)),
    ]


def refreshed(library: Library, values: dict[str, Any]) -> tuple[list[Any], bool]:
    """Base and Experts with the models read again, and whether one that was chosen is gone.

    How many there are is told, and folders that are not offered, and why. `values` lose what is
    gone.
    """
    library.refresh()
    models = view.choices(library)
    ids = [model for _, model in models]
    gr.Info(f"{len(models)} models are on offer.")
    for name, reason in library.left_out():
        gr.Info(f"{name} is not offered: {reason}")
    chosen = (values["base"], list(values["experts"] or ()))
    if values["base"] not in ids:
        values["base"] = library.default_selection()[0]
    values["experts"] = [m for m in chosen[1] if m in ids and m != values["base"]]
    lists = [
        gr.update(choices=models, value=values["base"]),
        view.experts_of(library, values["base"], value=values["experts"]),
    ]
    return lists, (values["base"], values["experts"]) != chosen


def held(
    named: Mapping[str, Any], stored: Any, models: Sequence[tuple[str, str]]
) -> dict[str, Any] | None:
    """The values that a browser kept, if the controls can have them and they can be read; else
    None."""
    values = controls.valid(named, stored, models)
    if values is None or len(values[spelling.OPENED]) > spelling.MOST_CHARACTERS:
        return None
    try:
        spelling.to_recipe(values)
    except RecipeError:
        values[spelling.OPENED] = ""  # whatever it was, it is no recipe
    return values


def restored(
    library: Library, named: dict[str, Any], stored: Any, usual: dict[str, Any]
) -> list[Any]:
    """The controls of a page that was just loaded: the models that are there now, and the values
    that its browser kept, where all of them still hold.

    Returns:
        A value per control, the experts that the weights belong to, and whether there is a family
        to show that the page does not show yet.
    """
    library.refresh()
    models = view.choices(library)
    values = held(named, stored, models)
    weighed = controls.valid_experts(stored.get("weighed"), models) if values else None
    if not values or weighed is None:  # who is quick may have chosen experts: those stay
        experts = view.experts_of(library, usual["base"])
        lists = [gr.update(choices=models, value=usual["base"]), experts]
        return [*lists, *[gr.skip()] * (len(named) - 2), gr.skip(), False]
    unshown = set(weighed) != set(values["experts"])  # one had been changed just before
    due = unshown or any(values[name] != usual[name] for name in ("base", "experts"))
    choice = pairing.choice_of(values)
    values["prune"] = pairing.fitted(choice).prune  # left before it followed the rule
    names = [label for label, model in models if model in values["experts"]]
    values.update(zip(controls.places(), places_of(values, names), strict=True))
    return [
        gr.update(choices=models, value=values["base"]),
        view.experts_of(library, values["base"], value=values["experts"]),
        *(values[name] for name in list(named)[2:]),
        weighed,
        due,
    ]
