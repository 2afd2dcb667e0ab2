"""The experts to choose from: a box for every model, in its look; those that do not fit the base
are grey, with the reason, and cannot be chosen.

Gradio's own takes no look and no reason of a choice. Its HTML never changes after mounting:
`assets/experts.js` draws the boxes, and puts those that a person checks into the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr

from ui.looks import Look

_ON_LOAD = """
const mount = () => window.amalgamExperts
  ? window.amalgamExperts.mount(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers 'input' when a person has chosen
"""
_TEMPLATE = """<fieldset class="expert-choice"><legend><span data-testid="block-info">{label}</span>
</legend><div class="fitting"></div>
<details class="misfits" hidden><summary></summary><ul></ul></details></fieldset>"""


class Experts(gr.HTML):
    """Ids of the models that are chosen.

    Args:
        value: those chosen, in any order.
        choices: (name, id) of every model that is no base.
        signs: of each by id, what `signs` makes.
        label: what is chosen, also the name for screen readers.
    """

    def __init__(
        self,
        value: Sequence[str] | None = None,
        *,
        choices: Sequence[tuple[str, str]] = (),
        signs: Mapping[str, Any] | None = None,
        label: str = "Experts",
        **arguments: Any,
    ) -> None:
        arguments.setdefault("html_template", _TEMPLATE.format(label=escape(label)))
        arguments.setdefault("js_on_load", _ON_LOAD)
        arguments.setdefault("apply_default_css", False)
        self.choices = list(choices)
        super().__init__(
            list(value or ()), choices=self.choices, signs=dict(signs or {}), **arguments
        )

    def postprocess(self, value: Any) -> Any:
        """Ids as they are."""
        return value


def signs(looks: Mapping[str, Look], misfits: Mapping[str, str]) -> dict[str, Any]:
    """What a box shows beside its name, by the model's id.

    Args:
        misfits: why some of them do not fit the base.
    """
    return {
        model: {"colour": look.colour, "glyph": look.glyph, "misfit": misfits.get(model, "")}
        for model, look in looks.items()
    }
