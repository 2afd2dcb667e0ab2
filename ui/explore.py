"""The Explore tab: what a recipe keeps of every expert, before anything is merged.

The histograms go to the browser once per family; from then on the plots follow the sliders there.
When the controls rest, the browser asks for the exact numbers of the plan.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from merging import kernels
from merging import recipe as recipes
from merging.engines.eager import Progress
from merging.errors import Cancelled, MergeError
from merging.methods import PRESETS, PRUNERS, RULES
from ui import controls
from ui import explore_view as view
from ui.controls import MAX_EXPERTS, MAX_PARTITIONS, Controls
from ui.library import Library
from ui.merge_view import span
from ui.panel import PlotPanel
from ui.readings import Reading, Readings

_WITHIN = """(prune, consensus, partitions, rate) => [prune, consensus,
  window.amalgam.within(partitions, "partitions"), window.amalgam.within(rate, "rate")]"""
_TELL_S = 0.4  # between two reports of a scan
_QUIET: dict[str, Any] = {
    "api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None,
    "trigger_mode": "always_last", "queue": False,
}  # fmt: skip


@dataclass(frozen=True)
class ExploreRefs:
    """The tab's components.

    Attributes:
        recipe: the current recipe, a YAML string.
        go_merge: opens the Merge tab.
        weighed: ids of the experts that the weights belong to, in order.
        stop: ends the reading of a family.
        kept: what the browser keeps of the controls, so that a reload loses nothing.
    """

    recipe: gr.State
    weighed: gr.State
    stop: gr.Button
    kept: gr.BrowserState
    go_merge: gr.Button
    controls: Controls
    headline: PlotPanel
    map: PlotPanel
    retention: PlotPanel
    energy: PlotPanel
    cosine: PlotPanel
    words: gr.HTML


def memory() -> gr.BrowserState:
    """Where the browser keeps the controls. Outside the tabs: it is read on load."""
    return gr.BrowserState({}, storage_key="amalgam-explore", secret="amalgam-explore")


def layout(kept: gr.BrowserState, library: Library) -> ExploreRefs:
    """Builds the tab's components inside the open gr.Tab, with the first family's numbers."""
    base, experts = library.default_selection()
    experts = experts[:MAX_EXPERTS]
    models = view.choices(library)
    with gr.Row(elem_classes="explore"):
        with gr.Column(scale=1, min_width=300, elem_classes="controls"):
            parts, go_merge = controls.layout(models, base, experts)
        with gr.Column(scale=3, min_width=320, elem_classes="plots"):
            stop = gr.Button("Stop reading", size="sm", visible=False, elem_id="stop-reading")
            panels = _panels()
    named = parts.named()
    values = {name: component.value for name, component in named.items()}
    refs = ExploreRefs(gr.State(""), gr.State(list(experts)), stop, kept, go_merge, parts, **panels)
    try:
        filled = view.family_values(library, named, values)
    except MergeError as error:
        filled = view.nothing(str(error))
    for component, value in zip(_outputs(refs), filled, strict=True):
        if component is refs.recipe or not isinstance(component, PlotPanel):
            component.value = value
        else:
            component.value = component.postprocess(value)
    return refs


def _panels() -> dict[str, Any]:
    built: dict[str, Any] = {
        "headline": PlotPanel(kind="headline", title="Finding", elem_id="headline"),
        "map": PlotPanel(
            kind="map", title=view.MAP_TITLE, elem_id="map",
        ),
    }  # fmt: skip
    with gr.Row(elem_classes="pair"):
        built["retention"] = PlotPanel(
            kind="retention", title="What survives where", elem_id="retention",
            min_width=300,
        )  # fmt: skip
        built["energy"] = PlotPanel(
            kind="energy", title="Energy kept against pruning rate", elem_id="energy",
            min_width=300,
        )  # fmt: skip
    with gr.Row(elem_classes="pair"):
        built["cosine"] = PlotPanel(
            kind="static", title="Which way the experts pull", elem_id="cosine",
            min_width=300,
        )  # fmt: skip
        built["words"] = gr.HTML(elem_id="words", min_width=300, apply_default_css=False)
    return built


def wire(demo: gr.Blocks, refs: ExploreRefs, library: Library) -> None:
    """Attaches the tab's events."""
    named = refs.controls.named()
    names, inputs = list(named), list(named.values())
    readings = Readings()

    def settle(weighed: list[str], *values: Any) -> list[Any]:
        chosen = dict(zip(names, values, strict=True))
        return [*_settled(library, chosen, weighed), keep(weighed, *values)]

    def keep(weighed: list[str], *values: Any) -> dict[str, Any]:
        return {**dict(zip(names, values, strict=True)), "weighed": weighed}

    def loaded(kept: Any, *values: Any) -> list[Any]:
        usual = dict(zip(names, values, strict=True))
        return _restored(library, named, kept, usual)

    def restored(
        request: gr.Request, due: bool, weighed: list[str], *values: Any
    ) -> Iterator[list[Any]]:
        if due:
            yield from family(request, weighed, *values)
        else:
            yield [gr.skip()] * len(filled)

    def family(request: gr.Request, weighed: list[str], *values: Any) -> Iterator[list[Any]]:
        page = _page(request)
        reading = readings.begin(page)
        try:
            chosen = dict(zip(names, values, strict=True))
            yield from _changed(library, named, chosen, weighed, reading)
        finally:
            readings.end(page, reading)

    def stop_reading(request: gr.Request) -> None:
        readings.stop(_page(request))

    def refreshed(request: gr.Request, weighed: list[str], *values: Any) -> Iterator[list[Any]]:
        chosen = dict(zip(names, values, strict=True))
        lists, changed = _refreshed(library, chosen)
        if not changed:
            yield [*lists, *[gr.skip()] * len(filled)]
            return
        for told in family(request, weighed, *chosen.values()):
            yield [*lists, *told]

    moving = [named[name].change for name in names if name not in ("base", "experts")]
    gr.on(moving, None, inputs, None, js="(...v) => { window.amalgam?.set(v); }", **_QUIET)
    refs.map.settle(
        settle, [refs.weighed, *inputs],
        [refs.headline, refs.recipe, refs.words, *refs.controls.amplification, refs.kept],
        js="(weighed, ...v) => [weighed, ...window.amalgam.clamp(v)]", **_QUIET,
    )  # fmt: skip
    filled = [*_outputs(refs), *refs.controls.weights, refs.weighed, refs.stop]
    asked = [refs.weighed, *inputs]
    # a newer choice ends the reading of an older one, see Readings
    reading = {**_QUIET, "queue": True, "trigger_mode": "multiple"}
    refs.stop.click(stop_reading, **_QUIET)
    refs.controls.experts.input(family, asked, filled, **reading).then(
        keep, asked, refs.kept, **_QUIET
    )
    refs.controls.base.input(
        lambda base, chosen: _rebased(library, base, chosen),
        [refs.controls.base, refs.controls.experts], refs.controls.experts, **_QUIET,
    ).then(family, asked, filled, **reading).then(keep, asked, refs.kept, **_QUIET)  # fmt: skip
    lists = [refs.controls.base, refs.controls.experts]
    refs.controls.refresh.click(refreshed, asked, [*lists, *filled], **reading)
    due = gr.State(False)
    demo.load(
        loaded, [refs.kept, *inputs], [*inputs, refs.weighed, due], **{**_QUIET, "queue": True}
    ).then(restored, [due, *asked], filled, **reading)
    _wire_shape(refs.controls)


def _wire_shape(parts: Controls) -> None:
    """A preset sets the controls, and the two axes decide which of them show."""
    parts.preset.input(_preset, parts.preset, _preset_outputs(parts), **_QUIET)
    shape: list[Any] = [parts.prune, parts.consensus, parts.partitions]
    gr.on(
        [component.change for component in shape], _shape, [*shape, parts.rate],
        [parts.preset, *_shaped(parts)], js=_WITHIN, **_QUIET,
    )  # fmt: skip


def _outputs(refs: ExploreRefs) -> list[Any]:
    """What a new family fills, in the order of `view.family_values`."""
    return [
        refs.headline, refs.recipe, refs.words, refs.map, refs.retention, refs.energy, refs.cosine,
    ]  # fmt: skip


def spelled(library: Library, values: dict[str, Any], weighed: Sequence[str]) -> str:
    """The YAML of the recipe that the controls spell now.

    Args:
        weighed: as `_changed`.

    Raises:
        MergeError: they spell none.
    """
    values = view.ordered(library, values)
    values.update(_weights(values, weighed, values["experts"]))
    return recipes.dump(controls.to_recipe(values))


def _settled(library: Library, values: dict[str, Any], weighed: Sequence[str]) -> list[Any]:
    """Exact numbers, the recipe, its words and the partitions' labels.

    Nothing while another family is about to be shown: its own numbers come with it.
    """
    try:
        values = view.ordered(library, values)
        if values["experts"] != list(weighed):
            return [gr.skip()] * (3 + MAX_PARTITIONS)
        recipe = controls.to_recipe(values)
        sketch = library.sketch(values["base"], values["experts"])
        told = view.numbers(library, recipe, sketch, values)
    except MergeError as error:  # in its place on the page: a plain request carries no toasts
        return [view.unplanned(str(error)), *[gr.skip()] * (2 + MAX_PARTITIONS)]
    count = int(values["partitions"])
    labels = controls.amplification_labels(values["rate"], count)
    updates = [gr.update(label=label) for label in labels]
    updates += [gr.skip()] * (MAX_PARTITIONS - count)
    return [*told, *updates]


def _changed(
    library: Library,
    named: dict[str, Any],
    values: dict[str, Any],
    weighed: Sequence[str] = (),
    reading: Reading | None = None,
) -> Iterator[list[Any]]:
    """A new family: says that it is being read, then fills every panel.

    Args:
        weighed: the experts that the weights belong to; those that stay keep theirs.
        reading: ends this one early.
    """
    reading = reading or Reading()
    same = [gr.skip()] * (MAX_EXPERTS + 1)
    keep, rest = [*same, gr.update(visible=True)], [*same, gr.update(visible=False)]
    count = len(values["experts"] or [])
    if count == 0:
        yield [*view.nothing("Choose at least one expert."), *rest]
        return
    try:
        ids = view.ordered(library, values)["experts"]
        values.update(_weights(values, weighed, ids))
        filled = yield from _read(library, named, values, reading.over, keep)
    except Cancelled:
        if not reading.replaced:
            again = "Choose experts to read them again."
            yield [*view.nothing(again, "Reading was stopped."), *rest]
        return
    except MergeError as error:
        yield [*view.nothing(str(error), "These models cannot be explored together."), *rest]
        return
    if reading.replaced:
        return
    names = view.names_of(library, ids)
    weights = [
        gr.update(visible=True, label=f"Weight of {name}", value=values[f"weight.{index}"])
        for index, name in enumerate(names)
    ]
    weights += [gr.update(visible=False, value=1.0)] * (MAX_EXPERTS - len(names))
    yield [*filled, *weights, ids, gr.update(visible=False)]


def _weights(
    values: dict[str, Any], before: Sequence[str], after: Sequence[str]
) -> dict[str, float]:
    """The weights of other experts: those that were there keep theirs, others have 1."""
    known = {model: values[f"weight.{index}"] for index, model in enumerate(before)}
    models = [*after, *[""] * MAX_EXPERTS][:MAX_EXPERTS]
    return {f"weight.{index}": known.get(model, 1.0) for index, model in enumerate(models)}


def _page(request: gr.Request) -> str:
    return str(request.session_hash)


def _read(
    library: Library,
    named: dict[str, Any],
    values: dict[str, Any],
    gone: threading.Event,
    keep: Sequence[Any],
) -> Generator[list[Any], None, list[Any]]:
    """Reads a family and tells how far it is, with a first look meanwhile.

    Args:
        gone: ends it; set when it is over.
        keep: what is told of all but the panels.

    Returns:
        Values of `_outputs`.

    Raises:
        Cancelled: `gone` was set. Other MergeErrors: the family cannot be read.
    """
    count, told = len(values["experts"]), deque[Progress](maxlen=1)
    rest = [*[gr.skip()] * 6, *keep]
    heading: dict[str, Any] | None = None  # of the first look, once there is one
    yield [_reading(count, None, None), *rest]
    with _worker(gone) as pool:
        looking = pool.submit(view.first_look, library, named, dict(values), gone)
        work = pool.submit(view.family_values, library, named, values, told.append, gone)
        for _ in _until_done(looking, gone):
            yield [_reading(count, None, None), *rest]
        if look := looking.result():
            heading = look[0]
            yield [_reading(count, None, heading), *look[1:], *keep]
        for _ in _until_done(work, gone):
            if told:
                yield [_reading(count, told[0], heading), *rest]
        return work.result()


@contextmanager
def _worker(gone: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """A thread to work on. However the block ends, `gone` is set and nobody waits for the thread:
    what cannot be ended at once (a compiler, a disk) ends by itself."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="scan")
    try:
        yield pool
    finally:
        gone.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _until_done(work: Future[Any], gone: threading.Event) -> Iterator[None]:
    """A moment after the other until the work is done. Raises Cancelled once `gone` is set."""
    while not wait([work], timeout=_TELL_S).done:
        if gone.is_set():
            raise Cancelled("stopped")
        yield


def _reading(
    experts: int, progress: Progress | None, look: dict[str, Any] | None
) -> dict[str, Any]:
    """The headline while a family is read: how far, and how long it will take.

    Args:
        look: the headline of a first look at it, which stays until all is read.
    """
    is_read = progress is not None and progress.done >= progress.total
    share = f" {100 * progress.done // max(progress.total, 1)}%" if progress is not None else ""
    if look is not None:
        now = f"Reading all of them{share}.{_time_left(progress)}"
        now = "All of them are read; their histograms are being put together." if is_read else now
        return {**look, "reason": f"A first look, from some of the entries. {now}"}
    told = "one expert" if experts == 1 else f"{experts} experts"
    now = f"Every tensor of {told} is read once; the result is kept.{_time_left(progress)}"
    if is_read:
        now = f"Every tensor of {told} is read; the histograms are being put together."
    elif progress is None and kernels.can_build() and not kernels.is_built():
        now += " The code that reads it is compiled first: once on this machine."
    return {
        "parts": [(f"Reading the changes\N{HORIZONTAL ELLIPSIS}{share}", "")], "sentence": "",
        "reason": now,
    }  # fmt: skip


def _time_left(progress: Progress | None) -> str:
    if progress is None or progress.eta_s is None:
        return ""
    return f" About {span(round(progress.eta_s))} left." if progress.eta_s >= 1 else ""


def _rebased(library: Library, base: str, chosen: Sequence[str] | None) -> Any:
    """The experts to choose from under another base: those chosen stay where they may fit it."""
    root = library.get(base)
    offered = controls.offered(view.choices(library), root.id)
    kept = [m for _, m in offered if m in (chosen or ()) and library.get(m).shape == root.shape]
    return gr.update(choices=offered, value=kept)


def _refreshed(library: Library, values: dict[str, Any]) -> tuple[list[Any], bool]:
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


def _restored(
    library: Library, named: dict[str, Any], kept: Any, usual: dict[str, Any]
) -> list[Any]:
    """The controls of a page that was just loaded: the models that are there now, and the values
    that its browser kept, where all of them still hold.

    Returns:
        A value per control, the experts that the weights belong to, and whether there is a family
        to show that the page does not show yet.
    """
    library.refresh()
    models = view.choices(library)
    values = controls.valid(named, kept, models)
    weighed = controls.valid_experts(kept.get("weighed"), models) if values else None
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
        *(values[name] for name in list(named)[2:]), weighed, due,
    ]  # fmt: skip


def _shape(prune: str, consensus: str, partitions: float, rate: float) -> list[Any]:
    """Which controls show: those that the two axes declare."""
    ranked = controls.has(PRUNERS[prune], "amplification")
    count = int(min(max(partitions, 1), MAX_PARTITIONS)) if ranked else 0
    labels = controls.amplification_labels(min(max(rate, 0.0), 1.0), count) if count else []
    return [
        controls.preset_of(prune, consensus),
        gr.update(visible=controls.has(PRUNERS[prune], "density")),
        gr.update(visible=ranked),
        *(gr.update(visible=True, label=label) for label in labels),
        *[gr.update(visible=False)] * (MAX_PARTITIONS - count),
        *(gr.update(visible=axis in (prune, consensus)) for axis in _grouped()),
        *[gr.update(visible=not controls.has(PRUNERS[prune], "scope"))] * len(_scopes()),
    ]


def _shaped(parts: Controls) -> list[Any]:
    """Components of `_shape`, after the preset."""
    return [
        parts.rate, parts.partitions, *parts.amplification,
        *(parts.groups[axis] for axis in _grouped()),
        *(parts.knobs[axis, "scope"] for axis in _scopes()),
    ]  # fmt: skip


def _grouped() -> list[str]:
    axes = (*PRUNERS.values(), *RULES.values())
    return [axis.id for axis in axes if controls.extra(axis)]


def _scopes() -> list[str]:
    """Consensus rules with a scope; a pruner's own scope takes its place."""
    return [axis.id for axis in RULES.values() if controls.has(axis, "scope")]


def _preset_outputs(parts: Controls) -> list[Any]:
    return [
        parts.prune, parts.consensus, parts.rate, parts.partitions, *parts.amplification,
        parts.strength, *parts.knobs.values(),
    ]  # fmt: skip


def _preset(chosen: str) -> list[Any]:
    """Every control at a preset's values."""
    preset = PRESETS[chosen]
    values = controls.settings(preset)
    factors = list(values.get("amplification", (1.0,)))
    return [
        preset.prune, preset.consensus, round(1 - values.get("density", 1.0), 6),
        len(factors), *factors, *[1.0] * (MAX_PARTITIONS - len(factors)),
        values.get("lambda", 1.0), *controls.knob_values(preset),
    ]  # fmt: skip
