"""The tour: five steps on the built-in family, offered once, from the map to a merge that answers.

All words stand in the markup; `assets/tour.js` shows them one by one beside the real controls, and
goes on when the person has done what a step asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from merging.checkpoints.names import DEMO_PREFIX

_ON_LOAD = """
const mount = () => window.amalgamTour
  ? window.amalgamTour.mount(element, trigger) : setTimeout(mount, 15);
mount(); // triggers 'input' when the built-in family is to be set
"""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        key: what `assets/tour.js` knows it by.
        title, text: what to do, in plain words.
        go: the button that moves the focus to the control.
        needs: what has to be done before, where the control is not there yet.
    """

    key: str
    title: str
    text: str
    go: str = ""
    needs: str = ""


STEPS = (
    Step(
        "map",
        "What each expert changed",
        "Each column is an expert, each row a layer. Colour marks the changes that are kept, grey "
        "those that are dropped. Click a layer to see its modules, or press Next.",
    ),
    Step(
        "rate",
        "Move the pruning rate",
        "It drops the smallest changes of every expert. Move it and watch the grey grow or shrink.",
        "Go to the slider",
        "These settings have no pruning rate.",
    ),
    Step(
        "live",
        "Switch Live on",
        "The merge is made in memory and asked at once. The bars show how often it is right in "
        "each skill, and follow every slider.",
        "Go to the switch",
    ),
    Step(
        "keep",
        "Keep the merge",
        "Do you like what you see? Give it a name, or take the one proposed, and press Keep. It "
        "becomes a model like any other.",
        "Go to the name",
        "There is nothing to keep yet: go back, switch Live on and wait for the first answers.",
    ),
    Step(
        "ask",
        "Talk to it",
        "Open it in Chat and ask it something, such as: What is 37 + 45?",
        "Go there",
        "There is nothing to open yet: go back and keep the merge.",
    ),
    Step(
        "end",
        "That was all",
        "Move a slider, hear the merge, keep it, talk to it: that is how to work here. Now try "
        "your own models. The tour stays in the Guide.",
    ),
)


class Tour(gr.HTML):
    """The offer, the card and the light around a control.

    Args:
        value: the recipe that the page begins with.
        base: its base; there is a tour where that is a built-in model.
    """

    def __init__(self, value: str = "", *, base: str = "", **arguments: Any) -> None:
        base = base if base.startswith(DEMO_PREFIX) else ""
        arguments.setdefault("html_template", markup(base))
        arguments.setdefault("js_on_load", _ON_LOAD)
        arguments.setdefault("apply_default_css", False)
        arguments.setdefault("elem_id", "tour")
        super().__init__(value, **arguments)


def markup(base: str) -> str:
    """The offer, every step's words and the buttons; all of it hidden at first.

    Args:
        base: of the family that the tour is about; "" where there is no tour.
    """
    return (
        '<div class="tour-offer" role="group" aria-label="Tour" hidden>'
        '<button type="button" data-tour>Take the tour</button>'
        '<button type="button" class="tour-no" aria-label="No tour, thank you">'
        "\N{MULTIPLICATION SIGN}</button></div>"
        '<div class="tour-light" hidden></div>'
        f'<div class="tour-card" data-base="{escape(base)}" role="dialog" aria-modal="false" '
        'tabindex="-1" hidden>'
        f'<p class="quiet tour-place"></p>{"".join(map(_step, STEPS))}'
        '<div class="tour-other" hidden><p>The tour is about the built-in models.</p>'
        '<button type="button" data-act="family">Use the built-in models</button></div>'
        '<div class="tour-verbs"><button type="button" data-act="end">End</button>'
        '<span></span><button type="button" data-act="back">Back</button>'
        '<button type="button" class="tour-next" data-act="next">Next</button></div></div>'
    )


def _step(step: Step) -> str:
    needs = f'<p class="tour-needs" hidden>{escape(step.needs)}</p>' if step.needs else ""
    go = f'<button type="button" data-act="go">{escape(step.go)}</button>' if step.go else ""
    return (
        f'<section data-key="{step.key}" hidden><h2>{escape(step.title)}</h2>'
        f"<p>{escape(step.text)}</p>{needs}{go}</section>"
    )


def button() -> str:
    """Markup of the button that starts the tour from elsewhere."""
    return '<button type="button" class="tour-start" data-tour>Take the tour</button>'
