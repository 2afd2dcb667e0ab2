"""The server as others meet it: pages of other sites, a Space's pages, people with a password."""

from __future__ import annotations

import http.server
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import ROOT, RunningApp, started
from tests.e2e.test_chat import ask, column, open_chat


class Foreign(http.server.BaseHTTPRequestHandler):
    """An empty page, of another origin than the app's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a page on this machine that is not the app's."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


REACH = """async (app) => {
  const form = new FormData();
  form.append("files", new Blob(["x".repeat(1000)]), "recipe.yaml");
  const ways = [
    fetch(`${app}config`), fetch(`${app}config`, {mode: "no-cors"}),
    fetch(`${app}gradio_api/upload`, {method: "POST", body: form, mode: "no-cors"}),
    fetch(`${app}gradio_api/run/predict`, {method: "POST", body: "{}", mode: "no-cors"}),
    fetch(`${app}gradio_api/queue/data?session_hash=x`, {mode: "no-cors"}),
  ];
  const script = document.createElement("script"), frame = document.createElement("iframe");
  script.src = `${app}config`;
  frame.src = app;
  ways.push(new Promise((done) => { script.onload = script.onerror = done; }));
  ways.push(new Promise((done) => { frame.onload = frame.onerror = done; }));
  document.body.append(script, frame);
  await Promise.allSettled(ways);
}"""


def test_a_page_of_another_site_reaches_nothing(app: RunningApp, browser, elsewhere: str) -> None:
    page = browser.new_page()
    page.goto(elsewhere)
    network = page.context.new_cdp_session(page)  # sees answers that the page may not
    network.send("Network.enable")
    sent: dict[str, str] = {}
    answers: list[tuple[str, int]] = []
    network.on(
        "Network.requestWillBeSent",
        lambda one: sent.update({one["requestId"]: one["request"]["url"]}),
    )
    network.on(
        "Network.responseReceivedExtraInfo",
        lambda one: answers.append((one["requestId"], one["statusCode"])),
    )
    page.evaluate(REACH, app.url)
    ours = [code for request, code in answers if sent.get(request, "").startswith(app.url)]
    assert ours == [403] * 7  # the page's own answer may still be on its way
    page.set_content(f'<a href="{app.url}">a link</a>')
    page.get_by_role("link").click()
    page.get_by_role("tab", name="Explore").wait_for()
    page.close()


def status(url: str, host: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Asks for the configuration under another name."""
    connection = HTTPConnection(urlsplit(url).netloc)
    sent = {"Host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request("GET", "/config", headers=sent)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


# the web's proxy is not there: nothing may ask it
SPACE = {
    "SPACE_ID": "me/amalgam",
    "SPACE_HOST": "me-amalgam.hf.space",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "AMALGAM_PORT": "0",
    "AMALGAM_DEVICE": "cpu",
    "http_proxy": "http://127.0.0.1:9",
}


def test_a_space_works_as_it_is_and_a_password_lets_in(tmp_path: Path, browser) -> None:
    folders = {"AMALGAM_MODELS": str(tmp_path), "AMALGAM_CACHE": str(tmp_path / "cache")}
    with started(env={**SPACE, **folders, "AMALGAM_AUTH": "ann:secret"}) as url:
        name = SPACE["SPACE_HOST"]
        asked = {"X_Forwarded_Proto": "https", "Origin": f"https://{name}"}
        assert status(url, name, **asked)[0] == 401  # the guard lets in, the password is missing
        assert status(url, "10.1.2.3:7860")[0] == 401
        assert status(url, "evil.example")[0] == 403
        assert status(url, name, Origin="https://evil.example")[0] == 403
        framing = status(url, name)[1]["content-security-policy"]
        assert framing.endswith("frame-ancestors 'self' https://huggingface.co")

        page = browser.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda one: wrong.append(one.text) if one.type == "error" else None)
        page.goto(url)
        page.get_by_label("Username").fill("ann")
        page.get_by_label("Password").fill("secret")
        page.get_by_role("button", name="Login").click()
        page.get_by_role("tab", name="Chat").wait_for(timeout=90_000)  # nothing is compiled yet
        open_chat(page)
        ask(page, "What is 37 + 45?")
        note = column(page, "demo:base").locator(".note")
        expect(note).to_contain_text("token", timeout=30_000)
        page.close()
        # the page that asks for the password is itself a 401
        assert not [text for text in wrong if "401 (Unauthorized)" not in text]


def test_ended_while_starting_it_says_nothing_and_ends_with_130(tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--models", str(tmp_path / "none"), "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        assert "not there yet" in process.stdout.readline()  # what is heavy is imported after this
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == ""
        assert process.wait(20) == 130
