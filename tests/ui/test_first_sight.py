"""The first sight: what it adds to the page as served, and what it leaves alone."""

from __future__ import annotations

import re

import pytest
from starlette.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from starlette.testclient import TestClient

from ui import theme
from ui.first_sight import First, FirstSight, frame
from ui.looks import Look

PAGE = "<html><head><script>a</script><script>b</script></head><body><gradio-app></body></html>"


def asked(inner, *, path: str = "/", method: str = "GET") -> tuple[dict, bytes]:
    """The headers and the body that a browser gets through the middleware."""
    plain = {"accept-encoding": "identity"}
    answer = TestClient(FirstSight(inner), headers=plain).request(method, path)
    return dict(answer.headers), answer.content


def test_a_page_is_sent_packed_to_who_takes_that() -> None:
    client = TestClient(FirstSight(HTMLResponse(PAGE)))
    answer = client.get("/")  # unpacked by the client
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == (
        "gzip",
        "Accept-Encoding",
    )
    assert answer.content == asked(HTMLResponse(PAGE))[1]
    assert int(answer.headers["content-length"]) < len(answer.content)


def test_the_frame_and_what_draws_it_stand_before_all_that_a_browser_waits_for() -> None:
    sheet = '<link rel="stylesheet" crossorigin href="./assets/index-DiEEvXS6.css">'
    headers, body = asked(HTMLResponse(PAGE.replace("</head>", sheet + "</head>")))
    text = body.decode()
    drawing = text.index("globalThis.amalgamBrush = ")
    order = [
        text.index("#first { position: fixed"),
        text.index("Keeps a page's answers coming"),
        text.index("<script>a</script>"),
        text.index('id="first"'),
        drawing,
        text.index(f'src="{theme.scripts().name}"'),
        text.index("<gradio-app"),
    ]
    assert order == sorted(order)
    assert text.count('id="first"') == 1
    (link,) = [link for link in re.findall("<link[^>]+>", text) if "stylesheet" in link]
    assert link == sheet.replace(" href", """ media="print" onload="this.media = 'all'" href""")
    assert headers["content-length"] == str(len(body))


def test_a_page_sent_in_pieces_is_put_together() -> None:
    pieces = [PAGE[:30].encode(), PAGE[30:70].encode(), PAGE[70:].encode()]

    async def page():
        for piece in pieces:
            yield piece

    assert asked(StreamingResponse(page()))[1] == asked(HTMLResponse(PAGE))[1]


@pytest.mark.parametrize(
    "inner",
    [
        PlainTextResponse("<head><script>"),
        HTMLResponse("<h1>Log in</h1>", 401),
        HTMLResponse(
            PAGE.replace("<script>a", '<script>gradio_config = {"auth_required":true}'), 401
        ),
    ],
)
def test_what_is_not_the_app_stays_as_it_is(inner) -> None:
    assert asked(inner)[1] == inner.body


@pytest.mark.parametrize("more", [{"path": "/config"}, {"method": "POST"}])
def test_other_requests_pass_through(more: dict) -> None:
    assert asked(HTMLResponse(PAGE), **more)[1] == PAGE.encode()


def test_what_the_controls_hold_is_seen_before_the_page_lives() -> None:
    first = First(
        parts=[("Keeps ", ""), ("30 %", "entries")],
        reason="Why.",
        note="Grey is pruned.",
        base="<base>",
        experts=[Look("add", "#0072B2", "\N{BLACK CIRCLE}", "solid")],
        choices=[("Preset", "DPPA"), ("Prune by", "Dynamic"), ("Combine by", "Sum")],
        sliders=[("Pruning rate", 0.7, 0.7), ("Strength", 0.4, 0.2)],
    )
    text = frame(first)
    assert '<h2>Keeps <em class="entries">30 %</em></h2>' in text
    assert "&lt;base&gt;" in text
    for seen in ("Why.", "Grey is pruned.", "add", "DPPA", "Dynamic", "Sum", "--at: 70.0%"):
        assert seen in text
    assert text.count('<p class="slid') == 2
    assert "0.4" in text


def test_an_app_without_models_has_a_first_sight_too() -> None:
    assert 'id="first"' in frame(First())
