"""What Explore shows of a family and a recipe: the values of its panels.

Pure functions from the library, the controls' values and the plan to what the browser gets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from merging import recipe as recipes
from merging.declarations.laws import Law
from merging.engines.eager import ProgressCallback
from merging.methods import PRUNERS, RULES
from merging.recipe import Recipe
from merging.sketches import plan as plans
from merging.sketches.sketch import FamilySketch
from ui import bins, controls, figures, findings, spelling
from ui.experts import signs
from ui.explore import arrival
from ui.library import Library
from ui.looks import Look, look

MAP_TITLE = "Where the changes are, and where each layer is cut"
_MAP_NOTES = {
    "all": "Share of entries by magnitude of the change. Nothing is pruned: everything is kept.",
    "random": "Share of entries by magnitude of the change. Pruned at random: every magnitude "
    "keeps the same share, so there is no cut.",
    "largest": "Share of entries by magnitude of the change. Grey is pruned, colour is kept; "
    "thin lines part the partitions, the most important on the right.",
}
_ZOOM = "Drag to zoom, with Shift to pan; a double click shows all."
_HISTOGRAM_NOTES = {
    "all": f"Nothing is pruned. Lines: the other experts. {_ZOOM}",
    "random": f"Colour is kept, grey is pruned. Lines: the other experts. {_ZOOM}",
    "largest": "Colour is kept, deeper where it is amplified; drag the cut to move the pruning "
    f"rate. Lines: the other experts. {_ZOOM}",
}
_OWN = "Of each expert's own change, before weights and strength"
_ENERGY_NOTES = {
    "all": f"{_OWN}. Nothing is pruned now; the lines show magnitude pruning.",
    "random": f"{_OWN}. At random, energy falls as fast as entries do.",
    "largest": f"{_OWN}; the upright line is your slider.",
}
_OF_LINEARS = "Of each expert's own change in the linear layers"


def _notes(note: Callable[[Law], str]) -> dict[str, str]:
    """The note of every pruner."""
    return {pruner.id: note(pruner.law) for pruner in PRUNERS.values()}


def _map_note(law: Law) -> str:
    return _MAP_NOTES[law.order]


def _histogram_note(law: Law) -> str:
    return _HISTOGRAM_NOTES[law.order]


def _energy_note(law: Law) -> str:
    note = _ENERGY_NOTES[law.order]
    return note.replace("Of each expert's own change", _OF_LINEARS, 1) if law.linears else note


def choices(library: Library) -> list[tuple[str, str]]:
    """(short name, id) of every model on offer."""
    return [(figures.short(model.label), model.id) for model in library.models()]


def looks(library: Library, models: Sequence[str]) -> list[Look]:
    """The looks of models on offer."""
    return [look(figures.short(library.get(model).label), library.seat(model)) for model in models]


def experts_of(library: Library, base: str, **value: Any) -> Any:
    """An update of the experts to choose from under a base.

    Args:
        value: `value`, where other experts are to be chosen.
    """
    offered = controls.offered(choices(library), base)
    return gr.update(choices=offered, signs=signs_of(library, base), **value)


def signs_of(library: Library, base: str) -> dict[str, Any]:
    """How the models on offer look, and why some do not fit a base."""
    ids = [model.id for model in library.models()]
    return signs(dict(zip(ids, looks(library, ids), strict=True)), library.misfits(base))


def ordered(library: Library, values: dict[str, Any]) -> dict[str, Any]:
    """The values with the experts in the order on offer, each of them checked to be on offer."""
    chosen = set(values["experts"] or ())
    for model in (values["base"], *chosen):
        library.get(model)
    experts = [model for _, model in choices(library) if model in chosen]
    return {**values, "experts": [model for model in experts if model != values["base"]]}


def moves(sketch: FamilySketch, recipe: Recipe) -> np.ndarray:
    """(E, T): how far dynamic pruning moves each density, per unit of its shift."""
    multiples = [recipe.parameters.get(name) for name in ("layer_outlier", "linear_outlier")]
    rows = range(len(sketch.experts))
    return np.array([sum(plans.offsets(sketch, row, *multiples)) for row in rows])


def numbers(
    library: Library, recipe: Recipe, sketch: FamilySketch, values: Mapping[str, Any]
) -> list[Any]:
    """The headline with the exact retention, the recipe's YAML and its words.

    Args:
        values: the controls' values; they go back with the answer, so that the browser can tell an
            answer to an older move.
    """
    ordered = spelling.in_order(recipe, values["experts"])
    plan = plans.plan(ordered, sketch)
    finding = findings.headline(plan, sketch, names_of(library, values["experts"]))
    finding["exact"] = figures.exact(plan, sketch, bins.cells(sketch.tensors))
    finding["offsets"] = bins.pooled_means(
        sketch, bins.cells(sketch.tensors), moves(sketch, ordered)
    )
    finding["densities"] = varied(ordered, sketch)
    finding["asked"] = dict(values)
    return [finding, recipes.dump(recipe), words(recipe, library.labels(recipe), plan.warnings)]


def varied(recipe: Recipe, sketch: FamilySketch) -> list[list[float]] | None:
    """(E, C): the density of every expert and cell, where one slider does not say them all."""
    asked = plans.densities_asked(recipe, sketch)
    if asked.size == 0 or np.ptp(asked) == 0:
        return None
    return bins.pooled_means(sketch, bins.cells(sketch.tensors), asked)


def family_values(
    library: Library,
    named: dict[str, Any],
    values: dict[str, Any],
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> list[Any]:
    """Values of `_outputs` for the chosen family. Raises MergeError.

    Args:
        progress, cancel: of the scan of a family that was never seen.
    """
    values = ordered(library, values)
    spelling.to_recipe(values)  # what is wrong with it is said before anything is read
    sketch = library.sketch(values["base"], values["experts"], progress, cancel)
    return drawn(library, named, values, sketch)


def first_look(
    library: Library, named: dict[str, Any], values: dict[str, Any], cancel: threading.Event
) -> list[Any] | None:
    """As `family_values`, from a preview; None where there is none. Raises MergeError."""
    values = ordered(library, values)
    spelling.to_recipe(values)
    sketch = library.preview(values["base"], values["experts"], cancel)
    return drawn(library, named, values, sketch) if sketch else None


def names_of(library: Library, experts: Sequence[str]) -> list[str]:
    """Short names of experts."""
    return [figures.short(library.get(model).label) for model in experts]


def drawn(
    library: Library, named: dict[str, Any], values: dict[str, Any], sketch: FamilySketch
) -> list[Any]:
    """The panels' values for a sketch. `values`: as `ordered` gives them."""
    recipe = spelling.to_recipe(values)
    table = bins.cells(sketch.tensors)
    names, own = names_of(library, values["experts"]), looks(library, values["experts"])
    family = {
        **bins.pack(sketch, table, moves(sketch, spelling.in_order(recipe, values["experts"]))),
        "looks": [asdict(one) for one in own],
    }
    listed = ", ".join(names)
    where = f"{len(table.layers)} layers, {len(table.modules)} modules"
    return [
        *numbers(library, recipe, sketch, values),
        {
            "figure": figures.map_figure(own),
            "notes": _notes(_map_note),
            "family": family,
            "controls": _facts(named, values),
            "summary": f"Magnitude of the changes of {listed} by layer, and the cuts. {where}.",
        },
        {
            "figure": figures.histogram_figure(),
            "notes": _notes(_histogram_note),
            "summary": f"Histogram of the changes of {listed} by their size.",
        },
        {
            "figure": figures.retention_figure(),
            "note": "Share kept, layer by module; click a cell for its histogram.",
            "summary": f"Share kept by layer and module of {listed}. {where}.",
        },
        {
            "figure": figures.clash_figure(),
            "note": "Share of the changes kept that another expert's kept change opposes, from "
            "sampled entries.",
            "summary": f"Share of what is kept that clashes in sign, by layer and module. {where}.",
        },
        {
            "figure": figures.energy_figure(own),
            "notes": _notes(_energy_note),
            "summary": "Energy kept of each expert's own change, before weights and strength, "
            f"against pruning rate, one line each for {listed}.",
        },
        {
            **figures.cosine_figure(sketch, own),
            "summary": f"Cosine between the changes of {listed}.",
        },
        arrival.panel(),
    ]


def _facts(named: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """What the browser must know of the controls: names, bounds, values."""
    bounds = {
        name: [component.minimum, component.maximum]
        for name, component in named.items()
        if isinstance(component, gr.Slider | gr.Number) and component.minimum is not None
    }
    current = [values[name] for name in named]
    return {"names": list(named), "bounds": bounds, "values": current, "laws": laws()}


def laws() -> dict[str, dict[str, Any]]:
    """What the browser's planner must know of every way to prune: its law, and the names of its
    knobs, since a control that another one shows keeps its value."""
    return {
        pruner.id: {**asdict(pruner.law), "knobs": [knob.name for knob in pruner.knobs]}
        for pruner in PRUNERS.values()
    }


def nothing(message: str, title: str = "Nothing to explore yet.") -> list[Any]:
    """Values of `_outputs` where there is nothing to show."""
    finding = {"parts": [(title, "")], "sentence": f"{title} {message}", "reason": message}
    return [finding, "", "", *[None] * 7]


def unread(message: str, title: str) -> list[Any]:
    """Values of `_outputs` where the models chosen cannot be shown: the plots stay as they are."""
    finding, recipe, words, *panels = nothing(message, title)
    return [finding, recipe, words, *[gr.skip()] * len(panels)]


def unplanned(message: str) -> dict[str, Any]:
    """The headline where the controls spell nothing that can be planned. The plots stay."""
    title = "These settings cannot be planned."
    return {"parts": [(title, "")], "sentence": f"{title} {message}", "reason": message}


def words(recipe: Recipe, called: Mapping[str, str], warnings: Sequence[str] = ()) -> str:
    """What the recipe does: in a sentence, as formulas, where they come from, what to mind.

    Args:
        called: what its models are called, by reference.
    """
    pruner, rule = PRUNERS[recipe.prune], RULES[recipe.consensus]
    axes = [pruner, rule] if pruner.prunes else [rule]  # nothing is pruned: no formula of it
    lines = "".join(
        f"<dt>{escape(axis.title)}</dt><dd><code>{escape(axis.formula)}</code></dd>"
        for axis in axes
    )
    leave = 'target="_blank" rel="noopener"'
    papers = "".join(
        f'<li><a href="{escape(axis.url)}" {leave}>{escape(axis.paper)}</a></li>'
        for axis in axes
        if axis.url
    )
    minded = "".join(f'<p class="minded">{escape(text)}.</p>' for text in warnings)
    sentence = escape(recipes.describe(recipe, called))
    return (
        '<section class="panel"><h3>What this recipe does</h3>'
        f"<p>{sentence}</p>{minded}<dl>{lines}</dl><ul>{papers}</ul>"
        "</section>"
    )
