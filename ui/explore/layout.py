"""The Explore tab's components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from merging.errors import MergeError
from ui import controls, live
from ui.controls import MAX_EXPERTS, Controls
from ui.explore import bench, opening, view
from ui.explore.bench import BenchRefs
from ui.explore.link import Link
from ui.explore.opening import OpenerRefs
from ui.explore.pairing import Aside
from ui.explore.tensor import TensorPage
from ui.explore.trail import Bench, Page, Trail
from ui.library import Library
from ui.live import LiveRefs
from ui.panel import PlotPanel

_STEPS = """<nav aria-label="Parts of the workbench">
<button type="button" data-step="models">Models</button>
<button type="button" data-step="shape">Shape</button>
<button type="button" data-step="live" aria-controls="hearing">Live</button>
</nav>"""
_ON_LOAD = """
const mount = () => window.amalgamFrame
  ? window.amalgamFrame.mount(element) : setTimeout(mount, 15);
mount();
"""


@dataclass(frozen=True)
class ExploreRefs:
    """The tab's components.

    Attributes:
        recipe: the current recipe, a YAML string; the page's address follows it.
        opener: recipes to open in the controls.
        go_merge: opens the Merge tab.
        weighed: ids of the experts that the weights belong to, in order.
        aside: what a choice on one axis has set aside on the other, see `pairing`.
        regrouped: how often that led to other experts; unseen. (Changes of a State are told of
            queued events alone.)
        stop: ends the reading of a family.
        memory: what the browser keeps of the controls, so that a reload loses nothing.
    """

    recipe: Link
    weighed: gr.State
    aside: gr.State
    regrouped: gr.Number
    stop: gr.Button
    memory: gr.BrowserState
    go_merge: gr.Button
    bench: BenchRefs
    opener: OpenerRefs
    controls: Controls
    headline: PlotPanel
    map: PlotPanel
    histogram: PlotPanel
    tensor: TensorPage
    retention: PlotPanel
    energy: PlotPanel
    clash: PlotPanel
    drift: PlotPanel
    cosine: PlotPanel
    words: gr.HTML
    live: LiveRefs


def memory() -> gr.BrowserState:
    """Where the browser keeps the controls. Outside the tabs: it is read on load."""
    return gr.BrowserState({}, storage_key="amalgam-explore", secret="amalgam-explore")


def build(
    stored: gr.BrowserState, library: Library, beneath: Callable[[], object] = lambda: None
) -> ExploreRefs:
    """Builds the tab's components inside the open gr.Tab, with the first family's numbers.

    Args:
        beneath: builds what stands beneath the models.
    """
    base, experts = library.default_selection()
    experts = experts[:MAX_EXPERTS]
    models = view.choices(library)
    with gr.Row(elem_classes="explore"):
        with gr.Column(min_width=0, elem_classes="controls"):
            remembering = bench.layout()
            with gr.Column(elem_classes="scroll"):
                parts = controls.layout(
                    models, base, experts, view.signs_of(library, base), beneath
                )
                with gr.Accordion("Over depth", open=False, elem_classes=["card", "over-depth"]):
                    remembering.gradient.render()
                opener = opening.layout(library)
            with gr.Row(elem_classes="verbs"):
                keep = live.beside()
                go_merge = gr.Button("Merge", variant="primary", size="lg")
        with gr.Column(min_width=0, elem_classes="plots"):
            stop = gr.Button("Stop reading", size="sm", visible=False, elem_id="stop-reading")
            panels = _panels()
        with gr.Column(min_width=0, elem_classes="hearing", elem_id="hearing"):
            panels["live"] = live.build(keep)
        gr.HTML(_STEPS, elem_classes="steps", apply_default_css=False, js_on_load=_ON_LOAD)
    named = parts.named()
    values = {name: component.value for name, component in named.items()}
    refs = ExploreRefs(
        Link(""),
        gr.State(list(experts)),
        gr.State(Aside()),
        gr.Number(0, visible="hidden", precision=0, label="Times regrouped"),
        stop,
        stored,
        go_merge,
        remembering,
        opener,
        parts,
        **panels,
    )
    first = Trail({**values, "weighed": list(experts)})
    refs.bench.state.value = Page(Bench(first))
    refs.bench.gradient.value = bench.over_depth(library, Bench(first))
    try:
        filled = view.family_values(library, named, values)
    except MergeError as error:
        filled = view.nothing(str(error))
    for component, value in zip(outputs(refs), filled, strict=True):
        if component is refs.recipe or not isinstance(component, PlotPanel):
            component.value = value
        else:
            component.value = component.postprocess(value)
    return refs


def _panels() -> dict[str, Any]:
    built: dict[str, Any] = {
        "headline": PlotPanel(kind="headline", title="Finding", elem_id="headline"),
        "map": PlotPanel(
            kind="map",
            title=view.MAP_TITLE,
            elem_id="map",
        ),
        "histogram": PlotPanel(
            kind="histogram",
            title="How large the changes are",
            elem_id="histogram",
        ),
        "tensor": TensorPage(elem_id="tensor"),
    }
    pairs = (
        (("retention", "What survives where"), ("clash", "Clash in sign")),
        (("drift", "How far the merge moves"), ("energy", "Energy kept against pruning rate")),
    )
    for pair in pairs:
        with gr.Row(elem_classes="pair"):
            for kind, title in pair:
                built[kind] = PlotPanel(kind=kind, title=title, elem_id=kind, min_width=300)
    with gr.Row(elem_classes="pair"):
        built["cosine"] = PlotPanel(
            kind="static",
            title="Which way the experts pull",
            elem_id="cosine",
            min_width=300,
        )
        built["words"] = gr.HTML(elem_id="words", min_width=300, apply_default_css=False)
    return built


def outputs(refs: ExploreRefs) -> list[Any]:
    """What a new family fills, in the order of `view.family_values`."""
    return [
        refs.headline,
        refs.recipe,
        refs.words,
        refs.map,
        refs.histogram,
        refs.retention,
        refs.clash,
        refs.energy,
        refs.cosine,
        refs.drift,
    ]
