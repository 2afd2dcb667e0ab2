"""The Guide tab: every knob, formula and source, written from the methods' own declarations."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import gradio as gr

from merging.declarations.knobs import Knob
from merging.declarations.methods import GROUPS, Method, Preset
from merging.methods import BLENDS, CONSENSUS, PRESETS, PRUNERS, RULES
from ui import tour

_WORDS = (
    ("Base", "The common ancestor of the models you merge."),
    ("Expert", "A model fine-tuned from that base."),
    ("Change", "An expert minus the base, parameter by parameter; also called task vector."),
    ("Pruning rate", "The share of an expert's changes set to zero. Density is 1 minus it."),
    ("Partition", "The kept changes, sorted by size and cut into equal parts, largest first."),
    ("Amplification", "The factor on one partition."),
    ("Energy", "The sum of the squares of the changes: what is left of it says how much survives."),
    ("Sign clash", "A parameter that two experts move in opposite directions."),
)

_DEMO = (
    "Tiny models of about a million parameters, trained from scratch on generated texts. They "
    "show real fine-tunes that really interfere, but say nothing of how a large model merges.",
    "Each expert knows one thing: add two numbers of two digits, spell a word of 3 to 6 letters "
    "backwards, write a number up to 9999 in Spanish, or sort 4 to 6 digits.",
    "They read one exchange at a time: the chat template keeps only the last question.",
    "They read characters. Anything outside their four domains gets a shrug.",
    "Scores are measured on held-out problems that no training text contains.",
)


def layout() -> gr.HTML:
    """Builds the tab inside the open gr.Tab."""
    return gr.HTML(page(), elem_id="guide")


def page() -> str:
    """The whole guide as markup."""
    presets = "".join(map(_group, GROUPS))
    words = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in _WORDS)
    limits = "".join(f"<li>{escape(line)}</li>" for line in _DEMO)
    return (
        "<div class='guide'>"
        "<section class='card'><h2>How to use it</h2><ol>"
        "<li><b>Explore</b>: move a slider and watch what every layer keeps and loses.</li>"
        "<li><b>Merge</b>: check the recipe, press Start; the result is an ordinary model folder."
        "</li><li><b>Chat</b>: ask the base, an expert and the merge the same thing.</li></ol>"
        f"<p>{tour.button()}</p>"
        f"<h2>Words</h2><dl class='words'>{words}</dl></section>"
        "<section class='card'><h2>Methods by name</h2><p>A method is one way to prune and one way "
        "to combine, which Explore pairs freely, or a blend of whole models.</p>"
        "<div class='scroll'><table><thead><tr>"
        "<th>Name and recipe</th><th>What it does</th><th>Use it when</th></tr></thead>"
        f"{presets}</table></div></section>"
        f"<h2>Prune by</h2>{_axes(PRUNERS.values())}<h2>Combine by</h2>{_axes(CONSENSUS.values())}"
        f"<h2>Blend whole models</h2>{_axes(BLENDS.values())}"
        f"<section class='card'><h2>The built-in family, and its limits</h2><ul>{limits}</ul>"
        "</section></div>"
    )


def _parts(preset: Preset) -> str:
    """What a preset is made of: a way to prune and a way to combine, or a blend alone."""
    title = RULES[preset.consensus].title
    return title if preset.consensus in BLENDS else f"{PRUNERS[preset.prune].title} + {title}"


def _group(group: str) -> str:
    """The rows of one group of presets, under its title."""
    rows = "".join(
        f"<tr><th scope='row'>{escape(p.title)}<br><code>{escape(p.id)}</code></th>"
        f"<td>{escape(p.summary)} <small>{escape(_parts(p))}</small></td>"
        f"<td>{escape(p.use_when)}</td></tr>"
        for p in PRESETS.values()
        if p.group == group
    )
    title = f"<tr><th scope='rowgroup' colspan='3'>{escape(GROUPS[group])}</th></tr>"
    return f"<tbody class='group'>{title}{rows}</tbody>"


def _axes(axes: Iterable[Method]) -> str:
    return "<div class='axes'>" + "".join(map(_axis, axes)) + "</div>"


def _axis(axis: Method) -> str:
    knobs = "".join(map(_knob, axis.knobs))
    table = (
        "<div class='scroll'><table><thead><tr><th>Knob</th><th>Range</th><th>Default</th>"
        f"<th>What it does</th></tr></thead><tbody>{knobs}</tbody></table></div>"
        if knobs
        else ""
    )
    link = f"<a href='{escape(axis.url)}' target='_blank' rel='noopener'>{escape(axis.paper)}</a>"
    source = f"<p class='source'>Source: {link}</p>" if axis.url else ""
    if axis.paper and not axis.url:
        source = f"<p class='source'>Source: {escape(axis.paper)}</p>"
    return (
        f"<section class='card' id='guide-{escape(axis.id)}'><h3>{escape(axis.title)} "
        f"<code>{escape(axis.id)}</code></h3><p>{escape(axis.summary)}</p>"
        f"<p class='formula'><code>{escape(axis.formula)}</code></p>{table}{source}</section>"
    )


def _knob(knob: Knob) -> str:
    if knob.choices:
        span = " · ".join(knob.choices)
    elif knob.low is not None:
        span = f"{_bound(knob.low)} to {_bound(knob.high)}"
    else:
        span = "yes or no"
    unit = f" <small>{escape(knob.unit)}</small>" if knob.unit else ""
    per_model = " <small>per model</small>" if knob.per_model else ""
    return (
        f"<tr><th scope='row'>{escape(knob.label)}<br><code>{escape(knob.name)}</code>{per_model}"
        f"</th><td>{escape(span)}{unit}</td><td>{escape(_value(knob.default))}</td>"
        f"<td>{escape(knob.info)}</td></tr>"
    )


def _bound(value: float | None) -> str:
    """A bound in full: seeds have ten figures."""
    return "any" if value is None else f"{value:.10g}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(_value(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
