"""The workbench as a person meets it: `python -m benchmarks.screens`.

Starts `python app.py`, opens it in Chromium and measures: from opening the page to its first
histograms and to the live plots (medians of 5 fresh browsers), and from a slider's move to the
drawn map (median of 60 moves). Then chat's tokens per second against plain `generate`, and
the merge of the built-in family per method. Run it on an idle machine.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.peers import RECIPES
from merging import recipe as recipes
from merging.demo import DOMAINS, folder
from merging.run.merge import merge
from tests.e2e.conftest import CHROMIUM, DESKTOP

MOVES = """async () => {
  const slider = document.querySelector('[aria-label="range slider for Pruning rate"]');
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
  const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
  const plot = document.querySelector('.js-plotly-plot');
  const times = [];
  for (let move = 0; move < 60; move++) {
    const drawn = new Promise((done) => plot.once('plotly_afterplot', done));
    const started = performance.now();
    set.call(slider, String((20 + move) / 100));
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await drawn;
    times.push(performance.now() - started);
    await frame();
  }
  return times;
}"""


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
            moves = page.evaluate(MOVES)
            print(f"slider to drawn map: {statistics.median(moves):.0f} ms (60 moves)")
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
    merges()
    screens()
    chat()
