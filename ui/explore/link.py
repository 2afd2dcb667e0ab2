"""The recipe in the page's address: what the server spells goes there, and what a person goes back
to comes from there."""

from __future__ import annotations

from typing import Any

import gradio as gr

_ON_LOAD = """
const mount = () => window.amalgamLink
  ? window.amalgamLink.mount(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers 'input' when a person went back or forth
"""
READ = "window.amalgamLink ? await window.amalgamLink.read() : ''"
"""JavaScript for the recipe of the address; "" where there is none."""


class Link(gr.HTML):
    """The YAML of a recipe, in the address bar. Nothing of it is seen on the page."""

    def __init__(self, value: str = "", **arguments: Any) -> None:
        arguments.setdefault("html_template", "<i hidden></i>")
        arguments.setdefault("js_on_load", _ON_LOAD)
        arguments.setdefault("apply_default_css", False)
        arguments.setdefault("elem_id", "link")
        super().__init__(value, **arguments)
