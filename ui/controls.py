"""The controls of Explore, built from what the methods declare.

Controls come in the order of the method: what is merged, how it is pruned, how it is combined. The
screen shows the pruning rate; recipes hold the density, 1 - rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from merging.declarations.knobs import AMPLIFICATION, LAMBDA, WEIGHT, Knob
from merging.declarations.methods import GROUPS, Method, Preset
from merging.methods import PRESETS, PRUNERS, RULES, RULES_BY_GROUP
from ui.choices import Choices, Option
from ui.experts import Experts
from ui.remark import remark

MAX_EXPERTS = 8
MAX_PARTITIONS = 8
_OWN_PLACE = ("weight", "density", "amplification", "lambda")  # knobs that stand outside "More"
_FIRST = next(preset for preset in PRESETS.values() if preset.opening)
"""What the first screen shows."""
_FIRST_RATE = round(1 - _FIRST.opening["density"], 6)
_RANGE_STEPS = 1000  # a knob of more steps than this is typed, not slid


@dataclass(frozen=True)
class Controls:
    """The components, in reading order.

    Attributes:
        paired: what a choice has set besides, told to who sees it or hears it.
        opened: the recipe that was opened, unseen, see `ui.spelling`.
        knobs: (axis id, knob name) -> component.
        groups: axis id -> the group that shows its knobs.
        weighing: the group that shows the weights.
        beneath: what was built beneath the models.
    """

    base: gr.Dropdown
    experts: Experts
    refresh: gr.Button
    weighing: gr.Accordion
    weights: tuple[gr.Slider, ...]
    presets: Choices
    reset: gr.Button
    prune: Choices
    rate: gr.Slider
    partitions: gr.Slider
    amplification: tuple[gr.Slider, ...]
    consensus: Choices
    paired: gr.HTML
    strength: gr.Slider
    opened: gr.Textbox
    knobs: Mapping[tuple[str, str], Any]
    groups: Mapping[str, gr.Accordion]
    beneath: Any = None

    def named(self) -> dict[str, Any]:
        """Every component whose value makes the recipe, by name, in one fixed order."""
        return {
            "base": self.base,
            "experts": self.experts,
            "prune": self.prune,
            "rate": self.rate,
            "partitions": self.partitions,
            "consensus": self.consensus,
            "lambda": self.strength,
            **{f"amplification.{k}": slider for k, slider in enumerate(self.amplification)},
            **{f"weight.{i}": slider for i, slider in enumerate(self.weights)},
            **{f"{axis}.{name}": component for (axis, name), component in self.knobs.items()},
            "opened": self.opened,
        }


def layout(
    models: Sequence[tuple[str, str]],
    base: str,
    experts: Sequence[str],
    signs: Mapping[str, Any] | None = None,
    beneath: Callable[[], object] = lambda: None,
) -> Controls:
    """Builds the controls.

    Args:
        models: (label, id) of every model on offer.
        signs: how the boxes of experts look, see `ui.experts`.
        beneath: builds what stands beneath the models.
    """
    preset = _FIRST
    names = [label for label, model in offered(models, base) if model in experts]
    parts: dict[str, Any] = {"knobs": {}, "groups": {}}
    parts["opened"] = gr.Textbox("", visible="hidden", label="The recipe that was opened")
    with gr.Column(elem_classes=["card", "models"]):
        parts["base"] = gr.Dropdown(
            models, value=base or None, label="Base", interactive=True, filterable=False
        )
        parts["experts"] = Experts(
            list(experts),
            choices=offered(models, base),
            signs=signs,
            elem_classes="experts",
        )
        parts["refresh"] = gr.Button("Look for new models", size="sm", elem_classes="link")
        parts["beneath"] = beneath()
        with gr.Accordion("Weights", open=False) as parts["weighing"]:
            parts["weights"] = _weights(names)
    with gr.Column(elem_classes="card"):
        with gr.Row(elem_classes="preset-row"):
            parts["presets"] = _presets()
            parts["reset"] = gr.Button("Reset to preset", size="sm", elem_classes="link")
        _pruning(parts, preset.prune, names)
    with gr.Column(elem_classes="card"):
        parts["consensus"] = _rules(preset.consensus)
        parts["paired"] = remark(elem_classes=["paired", "quiet"])
        parts["strength"] = _component(LAMBDA, _FIRST.opening["lambda"], "Strength λ")
        for axis in RULES.values():
            _more(parts, axis, axis.id == preset.consensus, names)
    built = Controls(**parts)
    for name, component in built.named().items():
        if isinstance(component, gr.Slider):
            component.elem_id = f"control-{name}"  # by which the page follows the hand
    return built


def _presets() -> Choices:
    """The presets in their groups, each with what it does."""
    of_group = {
        title: [
            Option(preset.id, preset.title, preset.summary)
            for preset in PRESETS.values()
            if preset.group == group
        ]
        for group, title in GROUPS.items()
    }
    return Choices(
        _FIRST.id,
        grouped=list(of_group.items()),
        label="Preset",
        folded=True,
        elem_classes="presets",
    )


def _pruners(chosen: str) -> Choices:
    options = [Option(pruner.id, pruner.title) for pruner in PRUNERS.values()]
    return Choices(
        chosen, grouped=[("", options)], label="Prune by", folded=True, elem_classes="axis"
    )


def _rules(chosen: str) -> Choices:
    """What combines, in the groups of the presets."""
    of_group = [
        (GROUPS[group], [Option(rule.id, rule.title) for rule in rules])
        for group, rules in RULES_BY_GROUP.items()
    ]
    return Choices(chosen, grouped=of_group, label="Combine by", folded=True, elem_classes="axis")


def _weights(names: Sequence[str]) -> tuple[gr.Slider, ...]:
    return tuple(
        _component(WEIGHT, WEIGHT.default, f"Weight of {name}", visible=bool(name))
        for name in [*names, *[""] * MAX_EXPERTS][:MAX_EXPERTS]
    )


def _pruning(parts: dict[str, Any], chosen: str, names: Sequence[str]) -> None:
    factors = _FIRST.opening["amplification"]
    parts["prune"] = _pruners(chosen)
    parts["rate"] = gr.Slider(
        0.0,
        0.99,
        value=_FIRST_RATE,
        step=0.01,
        label="Pruning rate",
        interactive=True,
        info="Share of each expert's changes that is dropped.",
    )
    parts["partitions"] = gr.Slider(
        1,
        MAX_PARTITIONS,
        value=len(factors),
        step=1,
        label="Partitions",
        interactive=True,
        info="What is kept, from its most important part on; amplification \N{MULTIPLICATION SIGN} "
        "for each.",
    )
    labels = amplification_labels(_FIRST_RATE, len(factors))
    parts["amplification"] = tuple(
        gr.Slider(
            AMPLIFICATION.low or 0.0,
            AMPLIFICATION.high or 4.0,
            step=AMPLIFICATION.step,
            interactive=True,
            elem_classes="row-slider",
            value=factors[k] if k < len(factors) else 1.0,
            label=labels[k] if k < len(factors) else f"Partition {k + 1}",
            visible=k < len(factors),
        )
        for k in range(MAX_PARTITIONS)
    )
    for axis in PRUNERS.values():
        _more(parts, axis, axis.id == chosen, names)


def _more(parts: dict[str, Any], axis: Method, visible: bool, names: Sequence[str]) -> None:
    """An accordion with the knobs of one axis that have no place of their own."""
    knobs = extra(axis)
    if not knobs:
        return
    with gr.Accordion(f"More: {axis.title}", open=False, visible=visible) as group:
        for knob in knobs:
            value = settings(_FIRST).get(knob.name, knob.default)
            parts["knobs"][axis.id, knob.name] = (
                _place(knob, names) if knob.is_place else _component(knob, value)
            )
    parts["groups"][axis.id] = group


def _place(knob: Knob, names: Sequence[str]) -> gr.Radio:
    """A choice among the experts by name, for a knob that is the place of one of them."""
    return gr.Radio(
        by_place(names),
        value=knob.default if names else None,
        label=knob.label,
        info=knob.info,
        interactive=True,
        elem_classes="chips",
    )


def _component(knob: Knob, value: Any, label: str = "", visible: bool = True) -> Any:
    """The component for one declared knob."""
    common: dict[str, Any] = {
        "label": label or knob.label,
        "value": value,
        "interactive": True,
        "visible": visible,
    }
    info = f"{knob.info} ({knob.unit})" if knob.unit and not label else knob.info
    if isinstance(knob.default, bool):
        return gr.Checkbox(info=info, **common)
    if knob.choices:
        return gr.Radio(list(knob.choices), info=info, elem_classes="segmented", **common)
    if knob.low is None or knob.high is None or knob.step is None:
        return gr.Number(info=info, **common)
    if (knob.high - knob.low) / knob.step > _RANGE_STEPS:
        whole = 0 if isinstance(knob.default, int) else None
        return gr.Number(minimum=knob.low, maximum=knob.high, precision=whole, info=info, **common)
    return gr.Slider(knob.low, knob.high, step=knob.step, info=None if label else info, **common)


def offered(models: Sequence[tuple[str, str]], base: str) -> list[tuple[str, str]]:
    """The experts to choose from: every model but the base."""
    return [(label, model) for label, model in models if model != base]


def by_place(names: Sequence[str]) -> list[tuple[str, int]]:
    """Experts to choose from by their place, counted from 1."""
    return [(name, place) for place, name in enumerate(names, 1)]


def places() -> list[str]:
    """Names, as in `Controls.named`, of the controls that hold an expert's place."""
    axes = (*PRUNERS.values(), *RULES.values())
    return [f"{axis.id}.{knob.name}" for axis in axes for knob in extra(axis) if knob.is_place]


def amplification_labels(rate: float, partitions: int) -> list[str]:
    """One label per partition, by the share of entries it holds: "top 5 %", "5-10 %"."""
    step = 100 * (1 - rate) / partitions
    bounds = [f"{step * k:.3g}" for k in range(partitions + 1)]
    return [
        f"top {bounds[1]} %" if k == 0 else f"{bounds[k]}\N{EN DASH}{bounds[k + 1]} %"
        for k in range(partitions)
    ]


def preset_of(prune: str, consensus: str) -> str | None:
    """The preset that stands at this point of the two axes, None for a free combination."""
    matching = (p.id for p in PRESETS.values() if (p.prune, p.consensus) == (prune, consensus))
    return next(matching, None)


def extra(axis: Method) -> list[Knob]:
    """The knobs of an axis that stand under "More"."""
    return [knob for knob in axis.knobs if knob.name not in _OWN_PLACE]


def settings(preset: Preset) -> dict[str, Any]:
    """What a preset sets: its method's defaults, and for the first screen's what that shows."""
    return {**preset.defaults, **preset.shown, **preset.opening}


def knob_values(preset: Preset) -> list[Any]:
    """The value of every knob of `Controls.knobs` at a preset, in order."""
    values = settings(preset)
    return [
        values.get(knob.name, knob.default)
        for axis in (*PRUNERS.values(), *RULES.values())
        for knob in extra(axis)
    ]


def has(axis: Method, knob: str) -> bool:
    """True where the axis declares the knob."""
    return any(declared.name == knob for declared in axis.knobs)


def valid(
    named: Mapping[str, Any], stored: Any, models: Sequence[tuple[str, str]]
) -> dict[str, Any] | None:
    """The values that a browser kept, if every one is what its control could have; else None.

    Args:
        named: as `Controls.named`.
        models: (label, id) of every model on offer.
    """
    if not isinstance(stored, dict) or not set(named) <= set(stored):
        return None
    experts = valid_experts(stored["experts"], models)
    if not experts or stored["base"] not in [model for _, model in models]:
        return None
    if stored["base"] in experts:
        return None
    for name, component in named.items():
        if name in places():
            if stored[name] not in range(1, len(experts) + 1):
                return None
        elif name not in ("base", "experts") and not _could_be(component, stored[name]):
            return None
    return {name: stored[name] for name in named}


def valid_experts(stored: Any, models: Sequence[tuple[str, str]]) -> list[str] | None:
    """The experts that a browser kept, if all are on offer and not too many; else None."""
    ids = [model for _, model in models]
    if not isinstance(stored, list) or len(stored) > MAX_EXPERTS:
        return None
    return stored if all(model in ids for model in stored) else None


def _could_be(component: Any, value: Any) -> bool:
    if isinstance(component, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(component, gr.Textbox):
        return isinstance(value, str)
    if isinstance(component, Choices):
        return value in component.ids
    if isinstance(component, gr.Radio):
        return value in [choice for _, choice in component.choices]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    low, high = component.minimum, component.maximum
    return is_number and (low is None or low <= value) and (high is None or value <= high)
