"""A choice of one among many: radio buttons in groups that fold, or in one that does not.

Gradio's own takes no headings. Its HTML never changes after mounting: `assets/choices.js` checks
the button of the value, and puts the one that a person checks into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

_ON_LOAD = """
const mount = () => window.amalgamChoices
  ? window.amalgamChoices.mount(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers 'input' when a person has chosen
"""


@dataclass(frozen=True)
class Option:
    """One of them.

    Attributes:
        id: the value that it stands for.
        title: its name.
        line: what it does, beneath the name.
    """

    id: str
    title: str
    line: str = ""


class Choices(gr.HTML):
    """The options of all groups, one of which is chosen; "" where none is.

    Args:
        value: id of the one that is chosen.
        grouped: (title, options) of every group; one without a title has no heading.
        label: what is chosen, also the name for screen readers.
        folded: True where one line says what is chosen until it is opened.
    """

    def __init__(
        self,
        value: str = "",
        *,
        grouped: Sequence[tuple[str, Sequence[Option]]] = (),
        label: str = "",
        folded: bool = False,
        **arguments: Any,
    ) -> None:
        self.ids = frozenset(option.id for _, options in grouped for option in options)
        arguments.setdefault("html_template", _markup(value, grouped, label, folded))
        arguments.setdefault("js_on_load", _ON_LOAD)
        arguments.setdefault("apply_default_css", False)
        super().__init__(value, **arguments)


def _markup(
    value: str, grouped: Sequence[tuple[str, Sequence[Option]]], label: str, folded: bool
) -> str:
    heading = f"<legend><span data-testid='block-info'>{escape(label)}</span></legend>"
    groups = "".join(_group(value, title, options) for title, options in grouped)
    if folded:
        titles = {option.id: option.title for _, options in grouped for option in options}
        chosen = f"<summary><b>{escape(titles.get(value, ''))}</b></summary>"
        groups = f"<details class='fold'>{chosen}{groups}</details>"
    return f"<fieldset class='choices'>{heading}{groups}</fieldset>"


def _group(value: str, title: str, options: Sequence[Option]) -> str:
    buttons = "".join(map(_option, options))
    if not title:
        return f"<div class='options'>{buttons}</div>"
    is_open = " open" if value in [option.id for option in options] else ""
    return (
        f"<details{is_open}><summary>{escape(title)}</summary>"
        f"<div class='options' role='radiogroup' aria-label='{escape(title)}'>{buttons}</div>"
        "</details>"
    )


def _option(option: Option) -> str:
    line = f"<small>{escape(option.line)}</small>" if option.line else ""
    return (
        f"<label><input type='radio' value='{escape(option.id)}'>"
        f"<span>{escape(option.title)}</span>{line}</label>"
    )
