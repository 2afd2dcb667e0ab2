"""What the page shows before its framework stands: the first map, from the same numbers.

Gradio and plotly.js need seconds on a slow machine until they draw. The page as served already
holds the first family's histograms (in Gradio's configuration), so `assets/first.js` draws the map
on a canvas at once, in a frame that looks like the page; the live panel takes its place. All that
this needs stands in the page itself, and nothing that a browser would wait for stands before it.
"""

from __future__ import annotations

import gzip
import re
from html import escape

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui import theme
from ui.bundle import takes_gzip
from ui.explore.view import MAP_TITLE

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


class FirstSight:
    """Middleware: puts tags into the head and the first sight into the body of the page at `/`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.head = theme.early().encode()
        self.body = (frame() + theme.sight() + theme.after()).encode()

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


def frame() -> str:
    """The page's outline: its bar, an empty column of controls, the finding, the map, and the live
    card's place."""
    tabs = "".join(f"<span>{name}</span>" for name in _TABS)
    cards = "<div class='card'></div>" * 3
    logo = escape(theme.url(theme.LOGO))
    return f"""<div id="first" role="status" aria-label="Amalgam is loading">
<div class="bar-top"><span class="brand"><img src="{logo}" alt=""> Amalgam</span>{tabs}</div>
<div class="explore"><div class="controls"><div class="scroll">{cards}</div></div>
<div class="plots">
<section class="finding"><h2></h2><p class="arrives"></p><p class="quiet"></p></section>
<section class="panel"><header><h3>{MAP_TITLE}</h3>{_TOOLS}</header><p class="quiet note"></p>
<canvas></canvas></section>
</div><div class="hearing"><div class="card"></div></div></div></div>
"""
