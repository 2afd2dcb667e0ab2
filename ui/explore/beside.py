"""The side that is not shown: what the browser needs to draw its cuts, and what it keeps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr

from merging.errors import MergeError
from merging.recipe import Recipe
from merging.sketches import plan as plans
from merging.sketches.plan import Plan
from ui import bins, findings, spelling
from ui.explore import view
from ui.explore.trail import Page, Settings
from ui.library import Library

_ON_LOAD = """
const mount = () => window.amalgamBeside
  ? window.amalgamBeside.mount(props, watch) : setTimeout(mount, 15);
mount();
"""


class Beside(gr.HTML):
    """What the browser is told of the other side. Nothing of it is seen on the page by itself."""

    def __init__(self, value: str = "", **arguments: Any) -> None:
        arguments.setdefault("html_template", "<i hidden></i>")
        arguments.setdefault("js_on_load", _ON_LOAD)
        arguments.setdefault("apply_default_css", False)
        arguments.setdefault("elem_id", "beside")
        super().__init__(value, **arguments)


@dataclass(frozen=True)
class Other:
    """The side that is not shown, as far as it is known.

    Attributes:
        facts: JSON for the browser, see `other`; "" where there is nothing to draw.
        words: what it keeps, in a sentence; "" where its family is not in memory.
    """

    facts: str = ""
    words: str = ""


def sides(page: Page) -> dict[str, Recipe]:
    """What both sides spell, by name, the one shown first; {} where there is one alone, or one
    spells no recipe."""
    present, held = page.bench.trail.present, page.bench.sides.held
    if present is None or held is None:
        return {}
    shown, other = page.bench.sides.shown, page.bench.sides.other
    try:
        return {shown: spelling.to_recipe(present), other: spelling.to_recipe(held)}
    except MergeError:
        return {}


def other(library: Library, page: Page) -> Other:
    """The side that is not shown; nothing of one that is the same, or spells no recipe.

    Its facts are {"side", "values", "offsets", "densities"}: the controls' values, and over its
    experts and the cells of its family what `view.numbers` tells of the side shown.
    """
    shown, recipe = [*sides(page).values(), None, None][:2]
    held = page.bench.sides.held
    if recipe is None or held is None or recipe == shown:
        return Other()
    if page.planned is None or page.planned[0] != held:
        planned = _planned(library, held, recipe)
        page.planned = (held, planned) if planned else None  # else it is looked for again next time
    if page.planned is None:
        return Other()
    side, (facts, plan) = page.bench.sides.other, page.planned[1]
    text = json.dumps({"side": side, **facts}, separators=(",", ":"))
    return Other(text, findings.retained(plan, side))


def _planned(
    library: Library, held: Settings, recipe: Recipe
) -> tuple[dict[str, Any], Plan] | None:
    """The facts of settings and their plan; None where their family is not in memory, or cannot be
    planned."""
    ordered = spelling.in_order(recipe, held["experts"])
    sketch = library.sketched(ordered)
    if sketch is None:
        return None
    try:
        plan = plans.plan(ordered, sketch)
    except MergeError:
        return None
    table = bins.cells(sketch.tensors)
    facts = {
        "values": {name: value for name, value in held.items() if name != "weighed"},
        "offsets": bins.pooled_means(sketch, table, view.moves(sketch, plan.recipe)),
        "densities": view.varied(plan.recipe, sketch),
    }
    return facts, plan
