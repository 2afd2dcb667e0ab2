"""The workbench as a person meets it: `python -m benchmarks.screens`.

Starts `python app.py`, opens it in Chromium and measures: from opening the page to its first
histograms and to the live plots (medians of 5 fresh browsers), what the page weighs and how far its
parts shift meanwhile, from a slider's move to the map and histogram that follow it (60 moves, of
the built-in family and of one of 30 layers, 7 modules and 4 experts), how many requests a drag of
20 steps makes, and the memory of page and server over 200 moves. Then chat's tokens per second
against plain `generate`, and the merge of the built-in family per method. Run it on an idle
machine.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.peers import RECIPES
from merging import recipe as recipes
from merging.demo import DOMAINS, folder
from merging.run.merge import merge
from tests.e2e.conftest import CHROMIUM, DESKTOP, make_family

MOVES = """async () => {
  const slider = document.querySelector('[aria-label="range slider for Pruning rate"]');
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  const plot = document.querySelector('#PANEL .js-plotly-plot');
  const times = [];
  for (let move = 0; move < COUNT; move++) {
    const shown = new Promise((done) => {
      plot.addEventListener('amalgam-shown', done, { once: true });
    });
    const started = performance.now();
    set.call(slider, String((20 + (move % 60)) / 100));
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await shown;
    times.push(performance.now() - started);
    await frame();
  }
  return times;
}"""


SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: 'layout-shift', buffered: true });
"""


DEEP = ("deep", "deep-a", "deep-b", "deep-c", "deep-d")


def moved(page: Page, panel: str, count: int = 60) -> list[float]:
    """Milliseconds from each of some moves of the slider to a panel's drawing, sorted."""
    script = MOVES.replace("PANEL", panel).replace("COUNT", str(count))
    return sorted(page.evaluate(script))


def followed(page: Page, name: str) -> None:
    """Prints how long it takes until the plots have followed a move."""
    for panel in ("map", "histogram"):
        times = moved(page, panel)
        half, most = statistics.median(times), times[int(0.95 * len(times))]
        print(f"slider to {panel}, {name}: {half:.0f} ms, 95 % within {most:.0f} (60 moves)")


def deepened(page: Page) -> None:
    """Chooses the family of 30 layers and waits until all of it is on the page."""
    page.get_by_label("Base", exact=True).click()
    page.get_by_role("option", name=DEEP[0], exact=True).click()
    for name in DEEP[1:]:
        page.locator(f'input[value$="/{name}"]').check()
    page.wait_for_function("amalgam.state.family?.experts === 4 && amalgam.state.arrived")


def weighed(browser: Browser, url: str) -> tuple[float, float]:
    """Megabytes that a fresh browser gets until the plots live, and how far the page's parts
    shifted (a layout shift score)."""
    page = browser.new_context(viewport=DESKTOP).new_page()
    page.add_init_script(SHIFTS)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    sizes: list[float] = []
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(url)
    page.locator("#map .main-svg").first.wait_for()
    page.wait_for_timeout(3000)
    shift = page.evaluate("window.shift")
    page.context.close()
    return sum(sizes) / 1e6, shift


def dragged(page: Page) -> int:
    """Requests of a drag of 20 steps, from the first to a second after the last."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    slider = page.get_by_label("range slider for Pruning rate")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    height = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.3 * box["width"], height)
    page.mouse.down()
    for step in range(20):
        page.mouse.move(box["x"] + (0.3 + 0.02 * step) * box["width"], height)
        page.wait_for_timeout(30)
    page.mouse.up()
    page.wait_for_timeout(1000)
    return sum("/run/predict" in url or "/queue/join" in url for url in asked)


def memory(page: Page, server: int) -> tuple[float, float]:
    """Megabytes of the page's heap after its rubbish is gone, and of the server's process."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"]
    status = Path(f"/proc/{server}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return heap / 1e6, int(resident.split()[1]) / 1e3


def start_app(models: Path) -> tuple[subprocess.Popen[str], str]:
    """Starts the app on a free port. Returns its process and address."""
    command = [sys.executable, "app.py", "--port", "0", "--models", str(models)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "http://" in line:
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process, line[line.index("http://") :].strip()
    raise RuntimeError("the app did not start")


def first_plot(browser: Browser, url: str) -> tuple[float, float]:
    """Seconds from opening the page to its first histograms, and to the live plot."""
    page = browser.new_context(viewport=DESKTOP).new_page()
    started = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.locator("#first h2 em").first.wait_for()  # written and painted in one go
    sight = time.perf_counter() - started
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    seconds = time.perf_counter() - started
    page.context.close()
    return sight, seconds


def screens() -> None:
    """Prints what the browser shows and when."""
    with tempfile.TemporaryDirectory() as models, sync_playwright() as play:
        make_family(Path(models), DEEP, hidden=64, layers=30)
        started = time.perf_counter()
        process, url = start_app(Path(models))
        print(f"start to address: {time.perf_counter() - started:.1f} s")
        try:
            arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
            browser = play.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
            paints = [first_plot(browser, url) for _ in range(5)]
            sight, live = (statistics.median(times) for times in zip(*paints, strict=True))
            print(f"page to first histograms: {sight:.2f} s, to the live plots: {live:.2f} s")
            page = browser.new_context(viewport=DESKTOP).new_page()
            page.goto(url)
            page.locator(".js-plotly-plot .main-svg").first.wait_for()
            page.wait_for_timeout(2000)
            followed(page, "built-in family")
            print(f"requests of a drag of 20 steps: {dragged(page)}")
            before = memory(page, process.pid)
            moved(page, "map", 200)
            page.wait_for_timeout(2000)
            after = memory(page, process.pid)
            names = zip(("page", "server"), before, after, strict=True)
            told = [f"{name} {first:.0f} to {last:.0f} MB" for name, first, last in names]
            print(f"memory over 200 moves: {', '.join(told)}")
            deepened(page)
            followed(page, "30 layers of 7 modules, 4 experts")
            size, shift = weighed(browser, url)
            print(f"page weight: {size:.2f} MB, layout shift {shift:.3f}")
            browser.close()
        finally:
            process.terminate()
            process.wait()


def chat() -> None:
    """Prints tokens per second of streaming and of plain `generate`."""
    from merging.trial.chat import ChatModel, Sampling

    model = ChatModel.load(folder("base"), "cpu")
    text = [{"role": "user", "content": "Tell me something"}]
    inputs = model.encode(text)
    network = model.model.network
    vars(model.model)["ends"] = frozenset()  # both go on to the 64th token
    rates: dict[str, list[float]] = {"stream": [], "generate": []}
    for _ in range(7):
        started = time.perf_counter()
        tokens = network.generate(inputs, max_new_tokens=64, min_new_tokens=64)
        count = tokens.shape[1] - inputs.shape[1]
        rates["generate"].append(count / (time.perf_counter() - started))
        *_, last = model.stream(text, Sampling(max_new_tokens=64))
        rates["stream"].append(last.tokens_per_second)
    for name, values in rates.items():
        print(f"chat, {name}: {statistics.median(values):.0f} tokens/s")


def merges() -> None:
    """Prints the merge of all four built-in experts, per method."""
    print("| method | merge ms | peak MB of the process |\n|---|---|---|")
    for method, parameters in RECIPES.items():
        recipe = recipes.build(
            method=method,
            base="demo:base",
            models=[(f"demo:{name}", parameters) for name in DOMAINS],
        )
        times = []
        for _ in range(7):
            with tempfile.TemporaryDirectory() as scratch:
                result = merge(recipe, Path(scratch) / "out", device="cpu")
            times.append(result.seconds)
        peak = result.peak_bytes / 1e6
        print(f"| {method} | {1e3 * statistics.median(times):.0f} | {peak:.0f} |")


if __name__ == "__main__":
    parts = {"merges": merges, "screens": screens, "chat": chat}
    for name in sys.argv[1:] or parts:
        parts[name]()
