"""One tensor's page: what its file says of it, what the experts changed, its line in the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np

from merging.checkpoints import open_checkpoint
from merging.errors import MergeError, RecipeError
from merging.recipe import Recipe
from merging.sketches import plan as plans
from merging.sketches.plan import Plan
from merging.sketches.sketch import FamilySketch
from ui import bins, spelling
from ui.explore import overrides, view
from ui.explore.gradients import EVERY, drawable
from ui.findings import percent
from ui.library import Library

MOST = 8  # tensors of one cell that are listed
_ON_LOAD = """
const mount = () => window.amalgamTensor
  ? window.amalgamTensor.mount(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers 'look' when a cell was chosen, 'input' when a value was set or taken away
"""
_TEMPLATE = (
    '<section class="panel tensor" aria-label="This tensor" hidden>'
    '<header><h3>This tensor</h3></header><div class="tensor-body"></div>'
    '<form class="tensor-form" aria-label="A value for this part"></form>'
    '<p class="quiet" role="status"></p></section>'
)


class TensorPage(gr.HTML):
    """The panel. Its value is JSON: what the server says (`facts`), which cell a person chose, or
    what a person set (`overrides.written`)."""

    def __init__(self, value: str = "", **arguments: Any) -> None:
        arguments.setdefault("html_template", _TEMPLATE)
        arguments.setdefault("js_on_load", _ON_LOAD)
        arguments.setdefault("apply_default_css", False)
        super().__init__(value, **arguments)


def answered(library: Library, values: dict[str, Any], text: str) -> str:
    """The page of the cell that was chosen.

    Args:
        values: of the controls.
        text: JSON {"cell": [layer, module]}.

    Returns:
        JSON, as `facts`; {"cell", "problem"} where there is none.
    """
    try:
        layer, module = cell = json.loads(text)["cell"]
    except (ValueError, TypeError, KeyError):
        return ""
    try:
        values = view.ordered(library, values)
        recipe = spelling.to_recipe(values)
        sketch = library.sketch(values["base"], values["experts"])
        names = view.names_of(library, values["experts"])
        types = types_of(library, [values["base"], *values["experts"]])
        page = facts(
            spelling.in_order(recipe, values["experts"]), sketch, (layer, module), names, types
        )
    except MergeError as error:
        return json.dumps({"cell": cell, "problem": f"{error}."})
    return json.dumps({"cell": cell, **page})


def types_of(library: Library, models: Sequence[str]) -> list[Mapping[str, Any]]:
    """The tensors of each model, by name, as its files' headers list them. Raises MergeError."""
    return [open_checkpoint(library.get(model).folder).tensors for model in models]


def facts(
    recipe: Recipe,
    sketch: FamilySketch,
    cell: tuple[int | str, str],
    names: Sequence[str],
    headers: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the page shows.

    Args:
        recipe: its sources in the order of the sketch's experts.
        cell: a layer and a module of `bins.cells`.
        names: of the experts.
        headers: of the base and of every expert, see `types_of`.

    Returns:
        JSON values: "title"; "tensors": [{"name", "words", "head", "rows"}]; "more", how many
        others there are; "knobs": [{"name", "label", "low", "high", "step", "each"}]; "models" and
        "scopes": [id or filter, words]; "rules", see `overrides.rules_of`.

    Raises:
        RecipeError: there is no such cell, or the recipe cannot be planned.
    """
    table = bins.cells(sketch.tensors)
    layer, module = cell
    if layer not in table.layers or module not in table.modules:
        raise RecipeError(f"this family has no {module} in layer {layer}")
    row, column = table.layers.index(layer), table.modules.index(module)
    inside = np.flatnonzero((table.row == row) & (table.column == column))
    at = [t for t in range(len(sketch.tensors)) if table.cell[t] in inside]
    plan = plans.plan(recipe, sketch)
    asked = plans.densities_asked(plan.recipe, sketch)
    shown = at[:MOST]
    models = [source.model for source in plan.recipe.sources]
    called = dict(zip(models, names, strict=True))
    rules = [rule for t in shown for rule in overrides.rules_of(recipe, sketch.tensors[t].name)]
    return {
        "title": f"Layer {layer}, {module}",
        "tensors": [
            {
                "name": sketch.tensors[t].name,
                "words": _words(sketch, plan, t, headers),
                "head": ["measure", *names],
                "rows": _rows(sketch, plan, asked, t),
            }
            for t in shown
        ],
        "more": len(at) - len(shown),
        "knobs": [
            {
                "name": knob.name,
                "label": knob.label,
                "low": knob.low,
                "high": knob.high,
                "step": knob.step or 0.01,
                "each": knob.per_model,
            }
            for knob in drawable(recipe)
        ],
        "models": [[EVERY, "all experts"], *([model, called[model]] for model in models)],
        "scopes": _scopes([sketch.tensors[t].name for t in shown], layer),
        "rules": _grouped(rules, called),
    }


def _words(sketch: FamilySketch, plan: Plan, t: int, headers: Sequence[Mapping[str, Any]]) -> str:
    name, numel = sketch.tensors[t].name, sketch.tensors[t].numel
    infos = [header[name] for header in headers if name in header]
    kinds = " and ".join(dict.fromkeys(info.dtype for info in infos))
    shape = " \N{MULTIPLICATION SIGN} ".join(map(str, infos[0].shape)) if infos else ""
    kept, opposed = plan.clash[t]
    clash = (
        f"of the changes kept that were sampled, {percent(opposed / kept)} clash in sign"
        if kept
        else "no sampled change is kept"
    )
    pruned = "" if plan.pruned[t] else "; it is not pruned"
    return ", ".join(filter(None, (shape, kinds, f"{numel:,} entries"))) + f"; {clash}{pruned}."


def _rows(sketch: FamilySketch, plan: Plan, asked: np.ndarray, t: int) -> list[list[str]]:
    """Label and a text per expert."""
    numel = max(sketch.tensors[t].numel, 1)
    kept, energy = plan.retention("entries")[:, t], plan.retention("l2")[:, t]
    norms = np.sqrt(sketch.l2.sum(axis=2)[:, t])
    rows: list[tuple[str, list[str]]] = [
        ("Unchanged", [percent(z / numel) for z in sketch.zeros[:, t]]),
        ("Mean |change|", [_short(s / numel) for s in sketch.sum_abs[:, t]]),
        ("Largest |change|", [_short(value) for value in sketch.max_abs[:, t]]),
        ("L1 norm", [_short(value) for value in sketch.sum_abs[:, t]]),
        ("L2 norm", [_short(value) for value in norms]),
        ("Weight", [_short(value) for value in plan.weight[:, t]]),
        ("Density asked", [percent(d) if plan.pruned[t] else "all" for d in asked[:, t]]),
        ("Entries kept", [percent(value) for value in kept]),
        ("Energy kept", [percent(value) for value in energy]),
        ("Cut at |change|", [_cut(plan, e, t) for e in range(len(sketch.experts))]),
        ("Factors", [_factors(plan, e, t) for e in range(len(sketch.experts))]),
    ]
    return [[label, *texts] for label, texts in rows]


def _cut(plan: Plan, e: int, t: int) -> str:
    """The smallest magnitude that is kept."""
    if not plan.pruned[t] or plans.law_of(plan.recipe).order != "largest":
        return "none"
    rings = np.flatnonzero(plan.gain[e, t] != 0)
    cut = plan.lower[e, t, rings].min() if rings.size else np.inf
    return _short(float(cut)) if np.isfinite(cut) else "keeps none"


def _factors(plan: Plan, e: int, t: int) -> str:
    gains = plan.gain[e, t] if plan.pruned[t] else plan.gain[e, t, :1]
    return " \N{MIDDLE DOT} ".join(_short(gain) for gain in gains)


def _grouped(rules: Sequence[Mapping[str, Any]], called: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rules, each once, with their models' names; one line for what holds for all experts."""
    models: dict[tuple[Any, ...], list[str]] = {}
    for rule in rules:
        key = (rule["knob"], rule["label"], rule["filter"], rule["value"])
        if rule["model"] not in models.setdefault(key, []):
            models[key].append(rule["model"])
    lines = []
    for (knob, label, part, value), holders in models.items():
        is_all = len(called) > 1 and set(holders) >= set(called)
        for model in [EVERY] if is_all else holders:
            name = "all experts" if is_all else called.get(model, "")
            line = {"knob": knob, "label": label, "model": model, "filter": part}
            lines.append({**line, "value": value, "name": name})
    return lines


def _short(value: float) -> str:
    return f"{float(value):.3g}"


def _scopes(names: Sequence[str], layer: int | str) -> list[list[str]]:
    """Parts of names that a value can be set for: filter and words. A layer's filter begins with
    the word before its number, else 3 would be found in 13."""
    number = str(layer).split()[-1]
    scopes: dict[str, str] = {}
    for name in names:
        match = re.match(rf"(?:.*?\.)??[^.\d]+\.{number}\.", name)
        if match is None:
            continue
        scopes.setdefault(match.group(), "this layer")
        module = name[match.end() :].removesuffix(".weight")
        words = "this module in every layer" if len(names) == 1 else f"{module} in every layer"
        scopes.setdefault(module, words)
    for name in names:
        scopes[name] = "this tensor alone" if len(names) == 1 else name
    return [[part, words] for part, words in scopes.items()]
