"""The door: which requests reach the app, how large they may be, and what browsers are told.

It stands around everything, Gradio's own middleware too, which would else answer for other sites.
Pure ASGI: streams pass through piece by piece. Starlette's `TrustedHostMiddleware` reads no IPv6
address and knows nothing of origins.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.hosts import Address, Hosts, address

MOST_BYTES = 4 * 2**20  # of a request's body: a recipe has at most 400 kB
_LONGEST = 100  # characters of a header that are repeated in an answer
_PROXY = (b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-prefix", b"x-gradio-server")
_SPACES = "https://huggingface.co"  # the pages that show a Space in a frame


@dataclass(frozen=True)
class Refusal:
    """Why a request goes no further."""

    status: int
    reason: str


class Guard:
    """Middleware that lets in what this server's own pages, and programs, ask for."""

    def __init__(self, app: ASGIApp, hosts: Hosts, *, is_space: bool = False) -> None:
        self.app = app
        self.hosts = hosts
        self.is_space = is_space
        self.headers = security_headers(is_space)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what is refused; passes everything else on, with its headers set."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        refusal = self.refusal(scope)
        if scope["type"] == "websocket":
            return await self._websocket(refusal, scope, receive, send)
        answered = self._answering(send)
        if refusal is not None:
            return await _answer(refusal)(scope, receive, answered)
        await _bounded(self.app, self._direct(scope), receive, answered)

    def refusal(self, scope: Scope) -> Refusal | None:
        """What is wrong with a request, by its headers alone."""
        headers = Headers(scope=scope)
        named = headers.getlist("host")
        host = address(named[0]) if len(named) == 1 else None
        if host is None:
            return Refusal(400, "The Host header is missing or names no host.")
        if not self.hosts.knows(host):
            name = host.name[:_LONGEST]
            return Refusal(
                403,
                f"This server is not called {name}. If it should be, start it with "
                f"--allow-host {name}.",
            )
        if not self._is_own(scope, headers, host):
            site = headers.get("origin", "another site")[:_LONGEST]
            return Refusal(
                403,
                f"Refused: a page of {site} asked for this. If that is this server behind a "
                "proxy, start it with --allow-host and the name.",
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MOST_BYTES:
            return Refusal(413, f"A request may have at most {MOST_BYTES} bytes.")
        return None

    def _is_own(self, scope: Scope, headers: Headers, host: Address) -> bool:
        """Whether one of our pages asked, or a program, or somebody who came by a link."""
        origins = headers.getlist("origin")
        if origins:
            return len(origins) == 1 and self.hosts.is_own_page(origins[0], host)
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return True
        fetch = headers.get("sec-fetch-dest"), headers.get("sec-fetch-mode")
        frames = [("iframe", "navigate")] if self.is_space else []
        arrives = fetch in [("document", "navigate"), *frames]
        return arrives and scope["path"] == "/" and scope["method"] in ("GET", "HEAD")

    def _direct(self, scope: Scope) -> Scope:
        """The request without what only a proxy may say of it, unless it names one of ours."""

        def passes(name: bytes, value: bytes) -> bool:
            if name == b"x-forwarded-host" and self.hosts.named:
                page = address(value.decode("latin-1").split(",")[0])
                return page is not None and page.name in [host.name for host in self.hosts.named]
            if name == b"x-forwarded-proto":
                said = value.split(b",")[0].strip()
                return bool(self.hosts.named) and said in (b"http", b"https")
            return name not in _PROXY

        return {**scope, "headers": [pair for pair in scope["headers"] if passes(*pair)]}

    def _answering(self, send: Send) -> Send:
        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(
                    raw=[
                        (name, value)
                        for name, value in message.get("headers", [])
                        if not name.lower().startswith(b"access-control-")
                    ]
                )
                headers.update(self.headers)
                message = {**message, "headers": headers.raw}
            await send(message)

        return answered

    async def _websocket(
        self, refusal: Refusal | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if refusal is None:
            return await self.app(self._direct(scope), receive, send)
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.reason})


def security_headers(is_space: bool) -> dict[str, str]:
    """What every answer tells the browser; a Space is shown in a frame of its hub's pages."""
    framing = f"'self' {_SPACES}" if is_space else "'none'"
    policy = {
        "default-src": "'self'",
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio makes functions of texts
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "worker-src": "'self' blob:",
        "connect-src": "'self' data: blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": framing,
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {what}" for name, what in policy.items()),
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
    return headers if is_space else {**headers, "X-Frame-Options": "DENY"}


def _answer(refusal: Refusal) -> Response:
    return PlainTextResponse(refusal.reason, refusal.status, {"Connection": "close"})


class _TooLarge(Exception):
    """More came than was announced, or than is taken."""


async def _bounded(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Runs the app; a body that grows too large, whatever its length was said to be, ends it."""
    taken, is_over, is_answered = 0, False, False

    async def received() -> Message:
        nonlocal taken, is_over
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            is_over = True
            raise _TooLarge
        return message

    async def sent(message: Message) -> None:
        nonlocal is_answered
        if is_over and not is_answered:
            return  # the app's own words for a body that broke off
        is_answered = True
        await send(message)

    with suppress(_TooLarge):
        await app(scope, received, sent)
    if is_over and not is_answered:
        refusal = Refusal(413, f"A request may have at most {MOST_BYTES} bytes.")
        await _answer(refusal)(scope, receive, send)
