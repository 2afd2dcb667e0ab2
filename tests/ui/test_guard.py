"""The guard: what it refuses before the app sees it, what it takes away, what it tells browsers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from ui.guard import MOST_BYTES, Guard
from ui.hosts import hosts

HERE = {"host": "localhost:7860"}
PAGE = {**HERE, "origin": "http://localhost:7860"}


async def echo(request: Request) -> JSONResponse:
    """What the app was asked, with an answer that lets everybody read it, as Gradio's may."""
    body = await request.body()
    request_said = {"headers": dict(request.headers), "bytes": len(body)}
    return JSONResponse(request_said, headers={"Access-Control-Allow-Origin": "*", "X-Own": "kept"})


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("in")
    await websocket.close()


APP = Starlette(
    routes=[
        Route("/{path:path}", echo, methods=["GET", "POST", "PUT", "DELETE", "OPTIONS"]),
        WebSocketRoute("/{path:path}", socket),
    ]
)


def client(*named: str, is_space: bool = False) -> TestClient:
    return TestClient(Guard(APP, hosts("127.0.0.1", named), is_space=is_space))


METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/", "/gradio_api/upload", "/gradio_api/queue/data", "/config"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example:7860"}, 403),
        ({"host": "localhost@evil.example"}, 400),
        ({"host": ""}, 400),
        ({**HERE, "origin": "http://evil.example"}, 403),
        ({**HERE, "origin": "http://localhost:3000"}, 403),
        ({**HERE, "origin": "null"}, 403),
        ({**HERE, "origin": ""}, 403),
        ({**HERE, "sec-fetch-site": "cross-site"}, 403),
        ({**HERE, "sec-fetch-site": "same-site"}, 403),
    ],
)
def test_other_sites_get_nothing(method: str, path: str, headers: dict, status: int) -> None:
    answer = client().request(method, path, headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers
    assert "x-own" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("doubled", ["host", "origin"])
def test_headers_that_come_twice_are_refused(doubled: str) -> None:
    pairs = [*PAGE.items(), (doubled, PAGE[doubled])]
    assert client().get("/", headers=pairs).status_code in (400, 403)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        HERE,  # a program
        PAGE,
        {**PAGE, "sec-fetch-site": "same-origin"},
        {"host": "[::1]:7860", "origin": "http://[::1]:7860"},
        {**HERE, "sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    ],
)
def test_own_pages_and_programs_come_in(method: str, headers: dict) -> None:
    answer = client().request(method, "/config", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["x-own"] == "kept"
    assert "access-control-allow-origin" not in answer.headers


def arriving(where: str) -> dict[str, str]:
    return {
        **HERE,
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": where,
    }


def test_a_link_leads_to_the_page_and_nowhere_else() -> None:
    guarded, space = client(), client(is_space=True)
    assert guarded.get("/?__theme=dark", headers=arriving("document")).status_code == 200
    assert guarded.get("/config", headers=arriving("document")).status_code == 403
    assert guarded.post("/", headers=arriving("document")).status_code == 403
    assert guarded.get("/", headers=arriving("iframe")).status_code == 403
    assert space.get("/", headers=arriving("iframe")).status_code == 200
    assert space.get("/", headers=arriving("embed")).status_code == 403


def headers_of(guarded: TestClient, **headers: str) -> dict[str, Any]:
    return guarded.get("/", headers={**HERE, **headers}).json()["headers"]


def test_what_only_a_proxy_may_say_is_taken_away() -> None:
    said = {
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "x-gradio-server": "http://evil.example",
        "x-forwarded-prefix": "/x",
    }
    assert not {*said} & {*headers_of(client(), **said)}
    behind = client("lab.example")
    assert {*said} & {*headers_of(behind, **said)} == {"x-forwarded-proto"}
    headers = headers_of(behind, **{**said, "x-forwarded-host": "Lab.example, inner"})
    assert headers["x-forwarded-host"] == "Lab.example, inner"
    assert "x-forwarded-proto" not in headers_of(behind, **{"x-forwarded-proto": "javascript"})


def test_frames_are_for_spaces_alone() -> None:
    plain, space = (client(is_space=one).get("/", headers=HERE).headers for one in (False, True))
    assert plain["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in plain["content-security-policy"]
    assert "x-frame-options" not in space
    assert space["content-security-policy"].endswith(
        "frame-ancestors 'self' https://huggingface.co"
    )


def pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // 2**16):
        yield bytes(2**16)


def test_large_bodies_are_refused_whatever_length_they_name() -> None:
    guarded = client()
    whole = bytes(MOST_BYTES)
    assert guarded.post("/", content=whole, headers=PAGE).json()["bytes"] == MOST_BYTES
    assert guarded.post("/", content=whole + b"x", headers=PAGE).status_code == 413
    # in pieces there is no length to go by
    assert guarded.post("/", content=pieces(MOST_BYTES), headers=PAGE).status_code == 200
    answer = guarded.post("/", content=pieces(2 * MOST_BYTES), headers=PAGE)
    assert answer.status_code == 413
    assert answer.headers["x-content-type-options"] == "nosniff"
    lied = guarded.post(
        "/", content=pieces(2 * MOST_BYTES), headers={**PAGE, "content-length": "9"}
    )
    assert lied.status_code == 413
    assert guarded.post("/", headers={**PAGE, "content-length": "-1"}).status_code == 413


def test_an_app_that_answers_a_broken_body_itself_is_not_heard() -> None:
    async def forgiving(scope, receive, send) -> None:
        try:
            while (await receive()).get("more_body"):
                pass
        except Exception:
            await PlainTextResponse("never mind", 400)(scope, receive, send)

    guarded = TestClient(Guard(forgiving, hosts("127.0.0.1")))
    answer = guarded.post("/", content=pieces(2 * MOST_BYTES), headers=HERE)
    assert (answer.status_code, "never mind" in answer.text) == (413, False)


def test_sockets_are_guarded_too() -> None:
    with client().websocket_connect("/x", headers=PAGE) as websocket:
        assert websocket.receive_text() == "in"
    for headers in ({**HERE, "origin": "http://evil.example"}, {"host": "evil.example"}):
        with (
            pytest.raises(WebSocketDisconnect),
            client().websocket_connect("/x", headers=headers),
        ):
            pass


def test_streams_pass_piece_by_piece() -> None:
    """The second piece is made only when the first one has gone out."""
    sent: list[bytes] = []

    async def counted():
        yield b"one"
        assert sent == [b"one"]
        yield b"two"

    async def send(message) -> None:
        if message.get("body"):
            sent.append(message["body"])

    async def receive():
        await asyncio.Event().wait()  # nothing more comes in

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"host", b"localhost")],
        "asgi": {"spec_version": "2.4"},
    }
    guarded = Guard(StreamingResponse(counted()), hosts("127.0.0.1"))
    asyncio.run(guarded(scope, receive, send))
    assert sent == [b"one", b"two"]
