"""What Explore answers: the recipe that the controls spell, and lists and values that follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from merging import recipe as recipes
from merging.errors import MergeError
from ui import controls
from ui.controls import MAX_EXPERTS, MAX_PARTITIONS
from ui.explore import view
from ui.library import Library


def spelled(library: Library, values: dict[str, Any], weighed: Sequence[str]) -> str:
    """The YAML of the recipe that the controls spell now.

    Args:
        weighed: as `changed`.

    Raises:
        MergeError: they spell none.
    """
    values = view.ordered(library, values)
    values.update(weights_of(values, weighed, values["experts"]))
    return recipes.dump(controls.to_recipe(values))


def unspelled(error: MergeError) -> str:
    """What stands in place of a recipe where the controls spell none: nothing older."""
    return f"# {error}\n"


def settled(library: Library, values: dict[str, Any], weighed: Sequence[str]) -> list[Any]:
    """Exact numbers, the recipe, its words and the partitions' labels.

    Nothing while another family is about to be shown: its own numbers come with it.
    """
    try:
        values = view.ordered(library, values)
        if values["experts"] != list(weighed):
            return [gr.skip()] * (3 + MAX_PARTITIONS)
        recipe = controls.to_recipe(values)
        sketch = library.sketch(values["base"], values["experts"])
        numbers = view.numbers(library, recipe, sketch, values)
    except MergeError as error:  # in its place on the page: a plain request carries no toasts
        return [view.unplanned(str(error)), unspelled(error), "", *[gr.skip()] * MAX_PARTITIONS]
    count = int(values["partitions"])
    labels = controls.amplification_labels(values["rate"], count)
    updates = [gr.update(label=label) for label in labels]
    updates += [gr.skip()] * (MAX_PARTITIONS - count)
    return [*numbers, *updates]


def weights_of(
    values: dict[str, Any], before: Sequence[str], after: Sequence[str]
) -> dict[str, float]:
    """The weights of other experts: those that were there keep theirs, others have 1."""
    weights = {model: values[f"weight.{index}"] for index, model in enumerate(before)}
    models = [*after, *[""] * MAX_EXPERTS][:MAX_EXPERTS]
    return {f"weight.{index}": weights.get(model, 1.0) for index, model in enumerate(models)}


def rebased(library: Library, base: str, chosen: Sequence[str] | None) -> Any:
    """The experts to choose from under another base: those chosen stay where they may fit it."""
    root = library.get(base)
    offered = controls.offered(view.choices(library), root.id)
    fitting = [m for _, m in offered if m in (chosen or ()) and library.get(m).shape == root.shape]
    return gr.update(choices=offered, value=fitting)


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
        gr.update(choices=controls.offered(models, values["base"]), value=values["experts"]),
    ]
    return lists, (values["base"], values["experts"]) != chosen


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
    values = controls.valid(named, stored, models)
    weighed = controls.valid_experts(stored.get("weighed"), models) if values else None
    if not values or weighed is None:  # who is quick may have chosen experts: those stay
        offered = controls.offered(models, usual["base"])
        lists = [gr.update(choices=models, value=usual["base"]), gr.update(choices=offered)]
        return [*lists, *[gr.skip()] * (len(named) - 2), gr.skip(), False]
    unshown = set(weighed) != set(values["experts"])  # one had been changed just before
    due = unshown or any(values[name] != usual[name] for name in ("base", "experts"))
    offered = controls.offered(models, values["base"])
    return [
        gr.update(choices=models, value=values["base"]),
        gr.update(choices=offered, value=values["experts"]),
        *(values[name] for name in list(named)[2:]),
        weighed,
        due,
    ]
