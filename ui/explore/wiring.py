"""Which control of Explore asks for what, and what the answer fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gradio as gr

from merging.methods import PRESETS
from ui import controls
from ui.controls import Controls
from ui.controls import places as places_of_experts
from ui.events import PROMPT
from ui.explore import answers, bench, scanning, shape, tensor
from ui.explore.going import Going
from ui.explore.layout import ExploreRefs, outputs
from ui.explore.link import READ
from ui.explore.pairing import Aside
from ui.explore.readings import Readings
from ui.explore.trail import Page
from ui.library import Library

_WITHIN = """(prune, consensus, partitions, rate) => [prune, consensus,
  window.amalgam.within(partitions, "partitions"), window.amalgam.within(rate, "rate")]"""
_MOVED = "(...v) => { window.amalgam?.set(v); }"
_HERE = "() => document.querySelector('#rooms [role=tab]').click()"
Brought = tuple[Callable[..., Any], Any]
_QUIET: dict[str, Any] = {**PROMPT, "trigger_mode": "always_last"}
# a newer choice ends the reading of an older one, see Readings
_READING: dict[str, Any] = {**_QUIET, "queue": True, "trigger_mode": "multiple"}


@dataclass(frozen=True)
class ExploreTab:
    """The tab's handlers. `values` are those of the controls, in the order of `named`."""

    refs: ExploreRefs
    library: Library
    readings: Readings

    @cached_property
    def named(self) -> dict[str, Any]:
        """The controls by name."""
        return self.refs.controls.named()

    @cached_property
    def going(self) -> Going:
        """The handlers that give the controls other settings."""
        return Going(self.library, self.named)

    @cached_property
    def remembering(self) -> list[Any]:
        """What `remembered` fills."""
        return [self.refs.memory, *self.refs.bench.outputs()]

    @cached_property
    def filled(self) -> list[Any]:
        """What a new family fills."""
        refs = self.refs
        places = [self.named[name] for name in places_of_experts()]
        return [*outputs(refs), *refs.controls.weights, *places, refs.weighed, refs.stop]

    def settled(self, page: Page, goings: int, weighed: list[str], *values: Any) -> list[Any]:
        """The exact numbers of the plan, and what the page and the browser remember."""
        numbers = answers.settled(self.library, self._by_name(values), weighed)
        return [*numbers, *self.remembered(page, goings, weighed, *values)]

    def foreseen(self, weighed: list[str], *values: Any) -> Any:
        """What arrives, by the recipe that the controls spell."""
        return answers.foreseen(self.library, self._by_name(values), weighed)

    def tensor(self, text: str, *values: Any) -> str:
        """The page of the tensors that are looked at."""
        return tensor.answered(self.library, self._by_name(values), text)

    def remembered(self, page: Page, goings: int, weighed: list[str], *values: Any) -> list[Any]:
        """What the browser and the page remember of the controls, at rest.

        Args:
            goings: as the browser knew it when the controls stood so: a page that was sent
                elsewhere since then stands elsewhere.
        """
        settings = self.going.at_rest(weighed, values)
        if settings is None or page.goings != goings:
            left = [gr.skip()] * len(self.refs.bench.outputs())
            return [{**self._by_name(values), "weighed": weighed}, *left]
        page.bench = page.bench.settled(settings)
        return [settings, *bench.shown(self.library, page)]

    def restored(
        self, request: gr.Request, due: bool, weighed: list[str], *values: Any
    ) -> Iterator[list[Any]]:
        """The family of a page that was just loaded, where it is another than the usual one."""
        if due:
            yield from self.family(request, weighed, *values)
        else:
            yield [gr.skip()] * len(self.filled)

    def family(self, request: gr.Request, weighed: list[str], *values: Any) -> Iterator[list[Any]]:
        """Reads the family that was chosen and fills every panel."""
        page = _page(request)
        reading = self.readings.begin(page)
        try:
            yield from scanning.changed(
                self.library, self.named, self._by_name(values), weighed, reading
            )
        finally:
            self.readings.end(page, reading)

    def stopped(self, request: gr.Request) -> None:
        """Ends the page's reading."""
        self.readings.stop(_page(request))

    def refreshed(
        self, request: gr.Request, weighed: list[str], *values: Any
    ) -> Iterator[list[Any]]:
        """The models read again; a new family where one that was chosen is gone."""
        chosen = self._by_name(values)
        lists, is_changed = answers.refreshed(self.library, chosen)
        if not is_changed:
            yield [*lists, *[gr.skip()] * len(self.filled)]
            return
        for panels in self.family(request, weighed, *chosen.values()):
            yield [*lists, *panels]

    def rebased(self, base: str, chosen: list[str]) -> Any:
        """The experts to choose from under another base."""
        return answers.rebased(self.library, base, chosen)

    def by_rule(self, prune: str, consensus: str, *held: Any) -> list[Any]:
        """What the choice of a rule leads to."""
        return self._paired("consensus", prune, consensus, *held)

    def by_pruner(self, prune: str, consensus: str, *held: Any) -> list[Any]:
        """What the choice of a pruner leads to."""
        return self._paired("prune", prune, consensus, *held)

    def by_preset(
        self,
        chosen: str,
        prune: str,
        consensus: str,
        experts: list[str],
        aside: Aside,
        times: int,
        *moved: Any,
    ) -> list[Any]:
        """What the choice of a preset leads to, and every other control at its values but those
        that were moved.

        Args:
            moved: values of `shape.movable`.
        """
        preset = PRESETS[chosen]
        before = controls.preset_of(prune, consensus)
        axes = self._paired("preset", preset.prune, preset.consensus, experts, aside, times)
        return [*axes, *shape.preset(chosen, before, moved)]

    def _paired(
        self, by: str, prune: str, consensus: str, experts: list[str], aside: Aside, times: int
    ) -> list[Any]:
        values = {"prune": prune, "consensus": consensus, "experts": experts}
        return answers.paired(self.library, values, aside, by, times)

    def _by_name(self, values: tuple[Any, ...]) -> dict[str, Any]:
        return dict(zip(self.named, values, strict=True))


def wire(
    demo: gr.Blocks, refs: ExploreRefs, library: Library, brought: Sequence[Brought] = ()
) -> list[Any]:
    """Attaches the tab's events.

    Args:
        brought: events of other tabs that bring a recipe here, each with the text's component.

    Returns:
        Those after which there is a new recipe.
    """
    tab = ExploreTab(refs, library, Readings())
    due = gr.State(False)  # whether there is another family to show
    _wire_shape(refs.controls)
    return [
        _wire_sliders(tab),
        *_wire_family(tab),
        _wire_pairs(tab),
        *_wire_bench(tab, due, brought),
        _wire_load(demo, tab, due),
    ]


def _wire_sliders(tab: ExploreTab) -> Any:
    """The browser draws while they move, and asks for exact numbers when they rest."""
    refs, inputs = tab.refs, list(tab.named.values())
    moving = [tab.named[name].change for name in tab.named if name not in ("base", "experts")]
    gr.on(moving, None, inputs, None, js=_MOVED, **_QUIET)
    refs.drift.foresee(
        tab.foreseen,
        [refs.weighed, *inputs],
        refs.drift,
        js="(weighed, ...v) => [weighed, ...window.amalgam.clamp(v)]",
        **_QUIET,
    )
    refs.tensor.look(
        tab.tensor,
        [refs.tensor, *inputs],
        refs.tensor,
        js="(cell, ...v) => [cell, ...window.amalgam.clamp(v)]",
        **_QUIET,
    )
    return refs.map.settle(
        tab.settled,
        [refs.bench.state, refs.bench.goings, refs.weighed, *inputs],
        [
            *(refs.headline, refs.recipe, refs.words),
            *refs.controls.amplification,
            *tab.remembering,
        ],
        js="(page, goings, weighed, ...v) => [page, goings, weighed, ...window.amalgam.clamp(v)]",
        **_QUIET,
    )


def _wire_family(tab: ExploreTab) -> list[Any]:
    """Another base, other experts, models read again: a family to read, unless it is stopped."""
    refs, parts, filled = tab.refs, tab.refs.controls, tab.filled
    asked = [refs.weighed, *tab.named.values()]
    noted = [refs.bench.state, refs.bench.goings, *asked]
    lists = [parts.base, parts.experts]
    refs.stop.click(tab.stopped, **_QUIET)
    chosen = parts.experts.input(tab.family, asked, filled, **_READING)
    chosen.then(tab.remembered, noted, tab.remembering, **_QUIET)
    rebased = parts.base.input(tab.rebased, lists, parts.experts, **_QUIET)
    read = rebased.then(tab.family, asked, filled, **_READING)
    read.then(tab.remembered, noted, tab.remembering, **_QUIET)
    renewed = parts.refresh.click(tab.refreshed, asked, [*lists, *filled], **_READING)
    return [chosen, read, renewed]


def _wire_load(demo: gr.Blocks, tab: ExploreTab, due: gr.State) -> Any:
    """A page that is loaded gets the models of now and the values that its browser kept."""
    refs, inputs = tab.refs, list(tab.named.values())
    first = [refs.bench.state, refs.memory, *inputs]
    loaded = demo.load(
        tab.going.loaded,
        [refs.recipe, *first],
        [*inputs, refs.weighed, due, *refs.bench.outputs()],
        js=f"async (_, ...v) => [{READ}, ...v]",
        **{**_QUIET, "queue": True},
    )
    return _shows_family(tab, loaded, due)


def _wire_bench(tab: ExploreTab, due: gr.State, brought: Sequence[Brought]) -> list[Any]:
    """Undo, redo, the other side and recipes give the controls other values; other experts are a
    family to read."""
    refs, inputs = tab.refs, list(tab.named.values())
    asked = [refs.bench.state, refs.weighed, *inputs]
    led = [*inputs, refs.weighed, due, *refs.bench.outputs()]
    going, opener = tab.going, refs.opener
    switched = refs.bench.side.input(going.switched, asked, led, **_QUIET)
    switched.then(None, inputs, None, js=_MOVED, **_QUIET)  # what was foreshown is so, or is not
    steps = [
        switched,
        refs.bench.undo.click(going.undone, asked, led, **_QUIET),
        refs.bench.redo.click(going.redone, asked, led, **_QUIET),
        refs.bench.leave.click(going.left_out, asked, led, **_QUIET),
        refs.recipe.input(going.opened, [refs.recipe, *asked], led, **_QUIET),
        refs.bench.gradient.input(going.drawn, [refs.bench.gradient, *asked], led, **_QUIET),
        refs.tensor.input(going.overridden, [refs.tensor, *asked], led, **_QUIET),
        opener.choice.input(going.chosen, [opener.choice, *asked], led, **_QUIET),
        opener.file.upload(going.uploaded, [opener.file, *asked], led, **_QUIET),
        *(listen(going.opened, [text, *asked], led, **_QUIET) for listen, text in brought),
    ]
    for step in steps[-len(brought) :] if brought else ():
        step.then(None, None, None, js=_HERE, **_QUIET)
    return [_shows_family(tab, step, due) for step in steps]


def _shows_family(tab: ExploreTab, event: Any, due: gr.State) -> Any:
    """After an event that gave the controls values: the family that they name, where it is another
    than the one shown."""
    inputs = [due, tab.refs.weighed, *tab.named.values()]
    js = "(due, weighed, ...v) => [due, weighed, ...window.amalgam.clamp(v)]"
    return event.then(tab.restored, inputs, tab.filled, js=js, **_READING)


def _wire_pairs(tab: ExploreTab) -> Any:
    """A choice on one axis sets the other where it must, a preset sets all controls; other experts
    are a family to read."""
    refs, parts = tab.refs, tab.refs.controls
    axes, held = [parts.prune, parts.consensus], [parts.experts, refs.aside]
    led = [*axes, *held, parts.paired, refs.regrouped]
    held.append(refs.regrouped)
    parts.prune.input(tab.by_pruner, [*axes, *held], led, **_QUIET)
    parts.consensus.input(tab.by_rule, [*axes, *held], led, **_QUIET)
    filled = [*led, *shape.preset_outputs(parts)]
    chosen = [parts.presets, *axes, *held, *shape.movable(parts)]
    parts.presets.input(tab.by_preset, chosen, filled, **_QUIET)
    parts.reset.click(shape.reset, axes, shape.preset_outputs(parts), **_QUIET)
    asked = [refs.weighed, *tab.named.values()]
    read = refs.regrouped.change(tab.family, asked, tab.filled, **_READING)
    noted = [refs.bench.state, refs.bench.goings, *asked]
    read.then(tab.remembered, noted, tab.remembering, **_QUIET)
    return read


def _wire_shape(parts: Controls) -> None:
    """The two axes decide which controls show, and which preset is marked."""
    axes: list[Any] = [parts.prune, parts.consensus, parts.partitions]
    gr.on(
        [component.change for component in axes],
        shape.shape,
        [*axes, parts.rate],
        shape.shaped(parts),
        js=_WITHIN,
        **_QUIET,
    )


def _page(request: gr.Request) -> str:
    return str(request.session_hash)
