"""A Hub for tests, on the loopback: enough of its protocol for huggingface_hub to list and fetch.

Files of `HubServer.repositories` are answered as the real one answers: large ones (safetensors) by
their sha256, small ones by git's. What goes wrong there goes wrong here on request: gated, missing,
cut off in the middle, held up, served without ranges, altered on the way.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")
_HEADER = "bytes=0-100000"  # of a safetensors file, as huggingface_hub asks for it


@dataclass
class HubRepository:
    """A repository.

    Attributes:
        files: path -> bytes.
        card: the metadata of its model card.
        gated: True where its files are for nobody without a token.
        commits: revision -> commit.
    """

    files: dict[str, bytes]
    card: Mapping[str, Any] = field(default_factory=dict)
    gated: bool = False
    commits: dict[str, str] = field(default_factory=lambda: {"main": COMMIT, COMMIT: COMMIT})


@dataclass
class HubServer:
    """The server's address, what it offers, what it was asked, and how it fails.

    Attributes:
        requests: (method, path, Range) of every request.
        tokens: Authorization of every request that had one.
        cuts: file -> bytes of each of the next answers after which the connection ends.
        stops: file -> bytes after which the next answer waits for `go`.
        stopped: set once one waits.
        altered: files of which the first byte is another on the way.
        ranges: False where parts of files are not sent.
    """

    url: str = ""
    repositories: dict[str, HubRepository] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    stops: dict[str, int] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    altered: set[str] = field(default_factory=set)
    ranges: bool = True

    def fetched(self) -> list[str]:
        """The files of which more than a header was asked for, as often as that was."""
        marks = [
            path.rpartition(f"/{COMMIT}/")[2]
            for method, path, part in self.requests
            if method == "GET" and "/resolve/" in path and part != _HEADER
        ]
        return sorted(marks)


def files_of(folder: Path) -> dict[str, bytes]:
    """The files of a model's folder, as a repository has them."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Serves until the block ends."""
    hub = HubServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if token := self.headers.get("Authorization"):
            self.hub.tokens.append(token)
        if path.startswith("/api/models/"):
            repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self._info(repo, revision or "main")
        elif "/resolve/" in path:
            repo, _, rest = path[1:].partition("/resolve/")
            revision, _, name = rest.partition("/")
            self._file(repo, revision, name)
        else:
            self._refuse(404, "")

    def _found(self, repo: str, revision: str) -> HubRepository | None:
        repository = self.hub.repositories.get(repo)
        if repository is None:
            self._refuse(401, "RepoNotFound")
        elif revision not in repository.commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return repository

    def _info(self, repo: str, revision: str) -> None:
        repository = self._found(repo, revision)
        if repository is None:
            return
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": _git(data), **_lfs(name, data)}
            for name, data in repository.files.items()
        ]
        info = {
            "id": repo,
            "sha": repository.commits[revision],
            "gated": "manual" if repository.gated else False,
            "cardData": dict(repository.card),
            "siblings": siblings,
        }
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _file(self, repo: str, revision: str, name: str) -> None:
        repository = self._found(repo, revision)
        if repository is None:
            return
        if repository.gated and not self.headers.get("Authorization"):
            return self._refuse(403, "GatedRepo")
        if name not in repository.files:
            return self._refuse(404, "EntryNotFound")
        data = repository.files[name]
        mark = _lfs(name, data)["lfs"]["sha256"] if name.endswith(LARGE) else _git(data)
        headers = {"ETag": f'"{mark}"', "X-Repo-Commit": repository.commits[revision]}
        asked, status = self.headers.get("Range", ""), 200
        if name in self.hub.altered and asked != _HEADER:
            data = bytes([data[0] ^ 1]) + data[1:]
        if asked and self.hub.ranges:
            start, _, stop = asked.removeprefix("bytes=").partition("-")
            whole, last = len(data), int(stop or len(data) - 1)
            data, status = data[int(start) : last + 1], 206
            headers["Content-Range"] = f"bytes {start}-{int(start) + len(data) - 1}/{whole}"
        self._send(status, data, headers, "" if asked == _HEADER else name)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code} if code else {})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], name: str = "") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if cuts := self.hub.cuts.get(name):
            self.wfile.write(data[: cuts.pop(0)])
            self.close_connection = True
            return
        if (size := self.hub.stops.pop(name, None)) is not None:
            self.wfile.write(data[:size])
            self.wfile.flush()
            self.hub.stopped.set()
            self.hub.go.wait(60)
            data = data[size:]
        self.wfile.write(data)

    def handle_one_request(self) -> None:
        """As inherited; who goes away meanwhile is no matter for the tests."""
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _lfs(name: str, data: bytes) -> dict[str, Any]:
    if not name.endswith(LARGE):
        return {}
    digest = hashlib.sha256(data).hexdigest()
    return {"lfs": {"size": len(data), "sha256": digest, "pointerSize": 130}}
