"""Undo, redo, and two settings side by side: their buttons and handlers.

A page remembers every setting at which its controls came to rest. To go to one of them is to give
the controls its values: everything else follows as if a person had moved them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import gradio as gr

from merging import recipe as recipes
from merging.errors import MergeError
from ui import controls, spelling
from ui.explore import answers, beside, gradients, view
from ui.explore.beside import Beside
from ui.explore.gradients import Gradient
from ui.explore.trail import SIDES, Bench, Page, Trail
from ui.library import Library
from ui.remark import remark


@dataclass(frozen=True)
class BenchRefs:
    """The components.

    Attributes:
        state: a `Page`; `goings` is how often it was sent elsewhere, as the browser knows it.
        side: which of two settings the controls show.
        bookmark: sets down the settings in History; `marked` tells how that went.
        beside: the other one, for the browser.
        words: how the other one differs, and what it keeps.
        kept: what the controls do not show of the recipe that was opened; `leave` leaves it out.
        gradient: values over depth; not on the page yet, see `render`.
    """

    state: gr.State
    goings: gr.Number
    side: gr.Radio
    undo: gr.Button
    redo: gr.Button
    bookmark: gr.Button
    marked: gr.HTML
    beside: Beside
    words: gr.HTML
    kept: gr.HTML
    leave: gr.Button
    gradient: Gradient

    def outputs(self) -> list[Any]:
        """What `shown` fills."""
        return [
            *(self.state, self.side, self.undo, self.redo, self.words),
            *(self.kept, self.leave, self.gradient, self.goings, self.beside),
        ]


def layout() -> BenchRefs:
    """Builds the row."""
    with gr.Row(elem_classes="bench"):
        side = gr.Radio(
            list(SIDES),
            value=SIDES[0],
            label="Settings",
            show_label=False,
            container=False,
            elem_classes="segmented",
            interactive=True,
            elem_id="side",
            min_width=0,
        )
        undo = gr.Button("Undo", size="sm", interactive=False, elem_id="undo", min_width=0)
        redo = gr.Button("Redo", size="sm", interactive=False, elem_id="redo", min_width=0)
        bookmark = gr.Button("Bookmark", size="sm", elem_id="bookmark", min_width=0)
    marked = remark("marked", ["quiet", "bench-words"])
    other = Beside()
    words = remark("bench-words", ["quiet", "bench-words"])
    with gr.Row(elem_classes="bench-kept"):
        kept = remark(elem_classes=["quiet", "kept-words"])
        leave = gr.Button("Leave it out", size="sm", visible=False, elem_classes="link")
    gradient = Gradient(render=False)
    state = gr.State(Page())
    goings = gr.Number(0, visible="hidden", precision=0, label="Times sent elsewhere")
    return BenchRefs(
        state, goings, side, undo, redo, bookmark, marked, other, words, kept, leave, gradient
    )


def shown(library: Library, page: Page) -> list[Any]:
    """Values of `BenchRefs.outputs`."""
    bench, other = page.bench, beside.other(library, page)
    return [
        page,
        bench.sides.shown,
        gr.update(interactive=bool(bench.trail.past)),
        gr.update(interactive=bool(bench.trail.future)),
        compared(library, bench, other.words),
        *_kept(library, bench),
        over_depth(library, bench),
        page.goings,
        other.facts,
    ]


def over_depth(library: Library, bench: Bench) -> str:
    """The value of the editor of values over depth; "" where the settings spell no recipe."""
    settings = bench.trail.present
    try:
        recipe = spelling.to_recipe(settings or {})
        layers = library.get(recipe.base).layers
    except (MergeError, KeyError):
        return ""
    names = {model: name for name, model in view.choices(library)}
    return gradients.facts(recipe, layers, names)


def _kept(library: Library, bench: Bench) -> list[Any]:
    """What the opened recipe has beside what the controls show, and the way to leave it out."""
    settings = bench.trail.present
    if settings is None or not settings.get(spelling.OPENED):
        return ["", gr.update(visible=False)]
    names = {model: name for name, model in view.choices(library)}
    phrases = spelling.unshown(settings, names)
    order = [source.model for source in spelling.to_recipe(settings).sources]
    if sorted(order, key=list(names).index) != order:
        phrases.append("the order of its models")
    if not phrases:  # points at one height
        return ["", gr.update(visible=False)]
    text = f"Also from the opened recipe: {'; '.join(phrases)}."
    return [escape(text), gr.update(visible=True)]


def compared(library: Library, bench: Bench, keeps: str = "") -> str:
    """How the side that is not shown differs; nothing where there is none. A problem goes first.

    Args:
        keeps: what it keeps, in a sentence.
    """
    if bench.problem:
        return escape(bench.problem)
    present, held = bench.trail.present, bench.sides.held
    if present is None or held is None:
        return ""
    other = bench.sides.other
    try:
        first, second = (spelling.to_recipe(one) for one in (present, held))
    except MergeError as error:
        return escape(f"{other} cannot be compared: {error}")
    names = {model: name for name, model in view.choices(library)}
    phrases = recipes.differences(first, second, names)
    if not phrases:
        return f"{other} is the same."
    return escape(f"{other} has {'; '.join(phrases)}. {keeps}".rstrip())


def undone(bench: Bench) -> Bench:
    """One step back."""
    return replace(bench, trail=bench.trail.undone())


def redone(bench: Bench) -> Bench:
    """One step forward again."""
    return replace(bench, trail=bench.trail.redone())


def plain(bench: Bench) -> Bench:
    """Without what the controls do not show of a recipe that was opened."""
    return bench.settled({**(bench.trail.present or {}), spelling.OPENED: ""})


def switched(bench: Bench) -> Bench:
    """The other side shown; a step that can be undone."""
    if bench.trail.present is None:
        return bench
    sides, settings = bench.sides.switched(bench.trail.present)
    return Bench(bench.trail.settled(settings), sides)


def restored(
    library: Library, named: Mapping[str, Any], page: Page, usual: Mapping[str, Any]
) -> list[Any]:
    """The controls at where a page's bench says that they stand.

    Args:
        usual: the values that the controls show.

    Returns:
        A value per control, the experts that the weights belong to, whether there is another
        family to show, and values of `BenchRefs.outputs`.
    """
    settings = page.bench.trail.present
    models = view.choices(library)
    values = answers.held(named, settings, models) if settings else None
    if settings is None or values is None:  # its models are gone
        back = [*[gr.skip()] * (len(named) + 1), False]
        gone = "Models of those settings are not on offer any more."
        page.bench = Bench(Trail(dict(usual)), problem=gone)
        return [*back, *shown(library, page)]
    names = [label for label, model in models if model in values["experts"]]
    values.update(zip(controls.places(), answers.places_of(values, names), strict=True))
    return [
        values["base"],
        view.experts_of(library, values["base"], value=values["experts"]),
        *(values[name] for name in list(named)[2:]),
        settings["weighed"],
        values["base"] != usual["base"] or set(settings["experts"]) != set(usual["experts"] or ()),
        *shown(library, page),
    ]
