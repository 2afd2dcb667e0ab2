"""The live plot: one component for every chart on the page, drawn in the browser.

Its HTML never changes after mounting, so that a chart keeps its node while values move through it;
the value is JSON that `assets/panel.js` draws with plotly.js.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

import gradio as gr

_TEMPLATE = """<section class="panel" data-kind="{kind}" aria-label="{title}">
<header><h3 aria-level="2">{title}</h3><div class="tools"></div></header>
<p class="quiet note"></p>
<figure><div class="plot" role="img" aria-label="{title}"></div>
<figcaption class="sr-only"></figcaption></figure>
<div class="as-table" role="region" aria-label="{title}: table" tabindex="0" hidden></div>
</section>"""
_HEADLINE = """<section class="finding" data-kind="headline" aria-label="{title}">
<h2 aria-hidden="true"></h2><p class="arrives" role="status"></p><p class="quiet"></p>
<p class="sr-only" role="status" aria-live="polite"></p>
</section>"""
_ON_LOAD = """
const mount = () => window.amalgam ? window.amalgam.mount(element, props, watch, trigger)
                                   : setTimeout(mount, 15);
mount(); // the panel of kind "map" triggers 'settle' when the controls have come to rest, that of
         // kind "drift" 'foresee' once it is answered
"""


class PlotPanel(gr.HTML):
    """A chart, or the headline above the charts.

    Args:
        value: JSON values; what each kind needs is in `ui.figures`.
        kind: which drawing of `assets/panel.js` fills it.
        title: the heading, also the chart's name for screen readers.
    """

    def __init__(
        self, value: Any = None, *, kind: str = "static", title: str = "", **arguments: Any
    ) -> None:
        template = _HEADLINE if kind == "headline" else _TEMPLATE
        arguments.setdefault(
            "html_template", template.format(kind=escape(kind), title=escape(title))
        )
        arguments.setdefault("js_on_load", _ON_LOAD)
        arguments.setdefault("apply_default_css", False)
        super().__init__(value, **arguments)

    def postprocess(self, value: Any) -> str | None:
        """JSON text, which the browser parses once; dictionaries would be wrapped in proxies."""
        if value is None or isinstance(value, str):
            return value
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
