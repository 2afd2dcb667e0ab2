"""The app as a user starts it, one browser, and pages that fail on any error in the console."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "assets" / "demo" / "base"
CHROMIUM = next(
    (
        Path(path)
        for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
        if name and (path := shutil.which(name))
    ),
    Path("chromium"),
)
START_S = 90  # the app imports torch and gradio
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
LAUNCH: dict[str, Any] = {
    "executable_path": str(CHROMIUM),
    "args": ["--no-sandbox", "--disable-dev-shm-usage"],
}
PROFILE: dict[str, Any] = {"reduced_motion": "reduce", "accept_downloads": True}


@dataclass(frozen=True)
class RunningApp:
    """The address of a started app and the folder its models are in."""

    url: str
    models: Path


def make_family(
    folder: Path,
    names: Sequence[str] = ("base", "one", "two"),
    *,
    hidden: int = 512,
    layers: int = 28,
) -> None:
    """Writes models of one family: random weights, large enough that a merge takes seconds."""
    import torch
    from safetensors.torch import save_file

    drawn = torch.randn(1 << 21, generator=torch.Generator().manual_seed(0))
    config = json.loads((DEMO / "config.json").read_text())
    config |= {
        "hidden_size": hidden,
        "intermediate_size": hidden * 8 // 3,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": hidden // 8,
        "max_position_embeddings": 512,
        "eos_token_id": None,  # it talks to the end
        "dtype": "bfloat16",
    }
    shapes = _shapes(hidden, layers, config["vocab_size"])
    for number, name in enumerate(names):
        values = 0.02 * drawn + (2e-3 * drawn.roll(31 * number) if number else 0)
        matrices, norms = values.bfloat16(), (1 + values).bfloat16()
        tensors = {}
        for at, (tensor, shape) in enumerate(shapes.items()):
            own = matrices if len(shape) > 1 else norms
            start = 977 * at % 4096  # each cut out of the same numbers: drawing them takes seconds
            tensors[tensor] = own[start : start + math.prod(shape)].reshape(shape).clone()
        (folder / name).mkdir(parents=True)
        save_file(tensors, folder / name / "model.safetensors", {"format": "pt"})
        (folder / name / "config.json").write_text(json.dumps(config))
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(DEMO / file, folder / name / file)


def _shapes(hidden: int, layers: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama's tensors."""
    inner = hidden * 8 // 3
    block: dict[str, tuple[int, ...]] = {
        **{f"self_attn.{one}_proj.weight": (hidden, hidden) for one in "qkvo"},
        **{f"mlp.{one}_proj.weight": (inner, hidden) for one in ("gate", "up")},
        "mlp.down_proj.weight": (hidden, inner),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    outside: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (vocabulary, hidden),
    }
    inside = [
        (f"model.layers.{n}.{name}", shape) for n in range(layers) for name, shape in block.items()
    ]
    return outside | dict(inside)


@contextmanager
def started(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """`python app.py` until the block ends: its address. Fails on a traceback in what it says."""
    process = subprocess.Popen(
        [sys.executable, "app.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    address = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if "http://" in line:
                address.set()
        address.set()

    threading.Thread(target=read, daemon=True).start()
    address.wait(START_S)
    addresses = [line.split()[-1] for line in lines if "http://" in line]
    if not addresses:
        process.kill()
        pytest.fail(f"the app did not start:\n{''.join(lines)}")
    try:
        yield addresses[0]
    finally:
        print("".join(lines))  # shown where the test failed
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    assert "Traceback" not in "".join(lines), "".join(lines)


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The app on a free port, over a family of its own beside the built-in one."""
    folder = tmp_path_factory.mktemp("app")
    models = folder / "models"
    make_family(models)
    make_family(models, ["quick"], hidden=64, layers=2)  # hundreds of tokens a second
    cache = str(folder / "cache")
    arguments = ("--port", "0", "--models", str(models), "--cache", cache, "--device", "cpu")
    with started(*arguments) as url:
        yield RunningApp(url, models)


@pytest.fixture(scope="session")
def driver() -> Iterator:
    """Playwright, with a Chromium to drive."""
    if not CHROMIUM.exists():
        pytest.fail("no Chromium found: make test-setup installs one, or set CHROMIUM to its path")
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def visitor(driver, tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """The profile that tests share, kept on disk: only such a one keeps compiled scripts, which
    makes every page after the third stand in a third of the time."""
    folder = tmp_path_factory.mktemp("profile")
    context = driver.chromium.launch_persistent_context(folder, **LAUNCH, **PROFILE)
    yield context
    context.close()


@pytest.fixture(scope="session")
def browser(driver) -> Iterator:
    """A browser for visitors who have profiles of their own."""
    browser = driver.chromium.launch(**LAUNCH)
    yield browser
    browser.close()


@pytest.fixture
def open_page(
    app: RunningApp, visitor, shared: list[Visit], request: pytest.FixtureRequest
) -> Iterator[Callable]:
    """Opens pages and fails on what went wrong in them. A second page is another visitor's: it gets
    a profile of its own. What the shared one kept of the visit is forgotten at the end, and a page
    that tests share is closed first: it keeps things in the same profile."""
    contexts, visits = [], []
    leave(shared)

    def open_page(*, viewport: dict = DESKTOP, query: str = "", goto: bool = True, context=None):
        if context is None and not visits:
            context = visitor
        elif context is None:
            context = request.getfixturevalue("browser").new_context(**PROFILE)
            contexts.append(context)
        visits.append(Visit(context.new_page(), app.url, viewport))
        if goto:
            visits[-1].enter(query)
        return visits[-1].page

    yield open_page
    for context in contexts:
        context.close()
    for visit in visits:
        visit.close()
    wrong = [text for visit in visits for text in visit.wrong]
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def shared() -> Iterator[list[Visit]]:
    """The visit that a module's tests share, while there is one."""
    shared: list[Visit] = []
    yield shared
    leave(shared)


def leave(shared: list[Visit]) -> None:
    """Closes the visit that tests share."""
    while shared:
        shared.pop().close()


@pytest.fixture
def shared_page(app: RunningApp, visitor, shared: list[Visit], request: pytest.FixtureRequest):
    """One desktop page for the tests of a module, as the test before left it: putting a page
    together takes a browser seconds. Whoever uses it begins by setting what it needs. After a
    failure the next test gets a new one."""
    if not shared:
        shared.append(Visit(visitor.new_page(), app.url, DESKTOP))
        shared[0].enter()
        shared[0].page.locator("#map .main-svg").first.wait_for()  # no test is to pay for it
    visit, failures = shared[0], request.session.testsfailed
    yield visit.page
    wrong = list(visit.wrong)
    visit.wrong.clear()
    if wrong or request.session.testsfailed > failures:
        leave(shared)
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def open_beside(app: RunningApp, visitor, request: pytest.FixtureRequest) -> Iterator[Callable]:
    """Opens pages beside the one that tests share: of another visitor, who has a profile of their
    own, or of the same browser."""
    contexts, visits = [], []

    def open_beside(*, same_browser: bool = False):
        context = visitor
        if not same_browser:
            context = request.getfixturevalue("browser").new_context(**PROFILE)
            contexts.append(context)
        visits.append(Visit(context.new_page(), app.url, DESKTOP))
        visits[-1].enter()
        return visits[-1].page

    yield open_beside
    for visit in visits:
        visit.page.close()
    for context in contexts:
        context.close()
    wrong = [text for visit in visits for text in visit.wrong]
    assert not wrong, "\n".join(wrong)


class Visit:
    """One page, and what went wrong in it."""

    def __init__(self, page, url: str, viewport: dict) -> None:
        self.page, self.url = page, url
        self.wrong: list[str] = []
        page.set_viewport_size(viewport)
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        page.on("console", self._hear)
        page.on("request", lambda request: _check_origin(request.url, url, self.wrong))

    def enter(self, query: str = "") -> None:
        """Goes to the app and waits for its tabs."""
        self.page.goto(self.url + query)
        self.page.get_by_role("tab", name="Explore").wait_for()

    def _hear(self, message) -> None:
        if message.type == "error":
            self.wrong.append(f"console: {message.text}")

    def close(self) -> None:
        """Leaves; what the browser kept of the visit is forgotten."""
        if self.page.is_closed():
            return
        if self.page.url.startswith(self.url):
            _forget(self.page, self.url)
        self.page.close()


def _forget(page, url: str) -> None:
    """Empties what the browser keeps of the app, once the page can write no more of it."""
    session = page.context.new_cdp_session(page)
    page.goto("about:blank")
    storage = {"origin": url.rstrip("/"), "storageTypes": "local_storage"}
    session.send("Storage.clearDataForOrigin", storage)


@pytest.fixture
def page(open_page: Callable):
    """One desktop page of the app."""
    return open_page()


def _check_origin(url: str, own: str, wrong: list[str]) -> None:
    if not url.startswith((own, "data:", "blob:", "about:")):
        wrong.append(f"request outside the app: {url}")


def sideways(page) -> int:
    """By how many pixels the page scrolls sideways."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
