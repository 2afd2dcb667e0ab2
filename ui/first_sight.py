"""What the page shows before its framework stands: the first map, from the same numbers.

Gradio and plotly.js need seconds on a slow machine until they draw. The page as served already
holds the first family's histograms (in Gradio's configuration), so `assets/first.js` draws the map
on a canvas at once, in a frame that looks like the page; the live panel takes its place. All that
this needs stands in the page itself, and nothing that a browser would wait for stands before it.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from merging.methods import PRESETS, PRUNERS, RULES
from ui import controls, theme
from ui.bundle import takes_gzip
from ui.explore.view import MAP_TITLE
from ui.looks import Look

if TYPE_CHECKING:
    from ui.explore import ExploreRefs

_TABS = ("Explore", "Merge", "Chat", "History", "Guide")

_SHEET = re.compile(rb'(<link rel="stylesheet" crossorigin)( href="\./assets/index-[^"]+">)')
"""Gradio's own, which the first sight does without: a browser would paint nothing and run no script
until it is there. It keeps its place, since sheets of its parts are to stand behind it."""
_UNWAITED = rb"""\1 media="print" onload="this.media = 'all'"\2"""
_EFFORT = 5  # of 9: a few milliseconds
_TOOLS = (
    '<div class="tools"><select disabled><option>All layers</option></select>'
    '<button type="button" disabled>Table</button></div>'
)


@dataclass(frozen=True)
class First:
    """What the page says of the first family before it is live.

    Attributes:
        parts, reason: of the finding, see `findings.headline`.
        note: the map's.
        base: what it is called.
        experts: their looks.
        choices: (label, what is chosen) of preset, pruner and rule.
        sliders: (label, value, place of the knob 0..1), from the pruning rate on; the last is the
            strength.
    """

    parts: Sequence[tuple[str, str]] = ()
    reason: str = ""
    note: str = ""
    base: str = ""
    experts: Sequence[Look] = ()
    choices: Sequence[tuple[str, str]] = ()
    sliders: Sequence[tuple[str, float, float]] = ()


def first_of(refs: ExploreRefs) -> First:
    """What Explore was built with."""
    parts, finding, plot = refs.controls, *map(_told, (refs.headline.value, refs.map.value))
    prune, consensus = str(parts.prune.value), str(parts.consensus.value)
    slid = [parts.rate, parts.partitions, *parts.amplification, parts.strength]
    preset = controls.preset_of(prune, consensus)
    return First(
        finding.get("parts", ()),
        finding.get("reason", ""),
        plot.get("notes", {}).get(prune, ""),
        next((str(name) for name, model in parts.base.choices if model == parts.base.value), ""),
        [Look(**look) for look in plot.get("family", {}).get("looks", ())],
        [
            ("Preset", PRESETS[preset].title if preset else ""),
            ("Prune by", PRUNERS[prune].title),
            ("Combine by", RULES[consensus].title),
        ],
        [
            (str(one.label), one.value, (one.value - one.minimum) / (one.maximum - one.minimum))
            for one in slid
            if one.visible
        ],
    )


def _told(value: str | None) -> dict:
    return json.loads(value) if value else {}


class FirstSight:
    """Middleware: puts tags into the head and the first sight into the body of the page at `/`."""

    def __init__(self, app: ASGIApp, first: First | None = None) -> None:
        self.app = app
        self.head = theme.early().encode()
        self.body = (frame(first or First()) + theme.sight() + theme.after()).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on; only a page that was answered in full is changed."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            return await self.app(scope, receive, send)
        start: Message = {}
        page = bytearray()

        async def collect(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            page.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            whole = self.filled(bytes(page))
            headers = [h for h in start["headers"] if h[0].lower() != b"content-length"]
            if takes_gzip(scope) and b"content-encoding" not in dict(start["headers"]):
                whole = gzip.compress(whole, _EFFORT)  # a seventh: histograms are text here
                headers += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
            length = (b"content-length", str(len(whole)).encode())
            await send({**start, "headers": [*headers, length]})
            await send({"type": "http.response.body", "body": whole})

        await self.app(scope, receive, collect)

    def filled(self, page: bytes) -> bytes:
        """The page with both; one without Gradio's app (an error, a login) stays as it is."""
        first_script, app = b"<script", b"<gradio-app"
        if app not in page or b'"auth_required":true' in page:
            return page
        page = page.replace(first_script, self.head + first_script, 1)
        return _SHEET.sub(_UNWAITED, page.replace(app, self.body + app, 1), 1)


def frame(first: First) -> str:
    """The page's outline: its bar, the controls and what they hold, the finding, the map, and the
    live card's place."""
    tabs = "".join(f"<span>{name}</span>" for name in _TABS)
    logo = escape(theme.url(theme.LOGO))
    finding = "".join(
        f'<em class="{escape(kind)}">{escape(text)}</em>' if kind else escape(text)
        for text, kind in first.parts
    )
    return f"""<div id="first" role="status" aria-label="Amalgam is loading">
<div class="bar-top"><span class="brand"><img src="{logo}" alt=""> Amalgam</span>{tabs}</div>
<div class="explore"><div class="controls" aria-hidden="true">{_controls(first)}</div>
<div class="plots">
<section class="finding"><h2>{finding}</h2><p class="arrives"></p>
<p class="quiet">{escape(first.reason)}</p></section>
<section class="panel"><header><h3>{MAP_TITLE}</h3>{_TOOLS}</header>
<p class="quiet note">{escape(first.note)}</p><canvas></canvas></section>
</div><div class="hearing"><div class="card"></div></div></div></div>
"""


def _controls(first: First) -> str:
    """The controls as they stand, to be seen and not yet to be moved."""
    verbs = "".join(f"<span>{verb}</span>" for verb in ("Undo", "Redo", "Bookmark"))
    experts = "".join(
        f'<span style="--own: {one.colour}"><i>{one.glyph}</i>{escape(one.name)}</span>'
        for one in first.experts
    )
    chosen = [
        f'<p class="chosen"><b>{label}</b><span>{escape(value)}</span></p>'
        for label, value in first.choices
    ]
    slid = [
        f'<p class="slid{" row" if 1 < index < len(first.sliders) - 1 else ""}">'
        f'<b>{escape(label)}</b><span>{value:g}</span><i style="--at: {share:.1%}"></i></p>'
        for index, (label, value, share) in enumerate(first.sliders)
    ]
    return (
        f'<div class="bench"><span class="sides"><b>A</b><span>B</span></span>{verbs}</div>'
        '<div class="scroll">'
        f'<div class="card models"><b>Base</b><span class="box">{escape(first.base)}</span>'
        f'<b>Experts</b><div class="pills">{experts}</div></div>'
        f'<div class="card">{"".join([*chosen[:2], *slid[:-1]])}</div>'
        f'<div class="card">{"".join([*chosen[2:], *slid[-1:]])}</div></div>'
    )
