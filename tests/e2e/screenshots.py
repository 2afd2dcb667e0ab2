"""Writes pictures of every tab, at desktop and phone width, to assets/screenshots.

python -m tests.e2e.screenshots [FOLDER]
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.conftest import CHROMIUM, DESKTOP, PHONE, ROOT

FOLDER = ROOT / "assets" / "screenshots"
MAX_BYTES = 300_000
RECIPE = (ROOT / "assets" / "recipes" / "add_sort.yaml").read_text(encoding="utf-8")


def explore(page: Page) -> None:
    """The first screen, drawn."""
    page.locator(".js-plotly-plot").first.wait_for()


def merge(page: Page, name: str = "add-and-sort") -> None:
    """A finished merge."""
    page.get_by_role("tab", name="Merge").click()
    page.get_by_label("Recipe (YAML)").fill(RECIPE)
    box = page.get_by_label("Name of the new model")
    target = name if page.viewport_size == DESKTOP else f"{name}-small"
    while box.input_value() != target:  # a name that was suggested may arrive meanwhile
        box.fill(target)
        page.wait_for_timeout(200)
    button = page.get_by_role("button", name="Start", exact=True)
    expect(button).to_be_enabled(timeout=20_000)
    button.click()
    page.locator("#merge-drift .js-plotly-plot").wait_for(timeout=60_000)
    page.get_by_label("Recipe (YAML)").evaluate("field => field.scrollTo(0, 0)")


def chat(page: Page) -> None:
    """The merge beside its sources, two questions answered."""
    merge(page, "both-skills")
    page.get_by_role("button", name="Talk to it").click()
    expect(page.locator(".chat-head")).to_have_count(4)
    for number, question in enumerate(("What is 37 + 45?", "Sort 5 1 4 2")):
        page.get_by_placeholder("Ask all of them").fill(question)
        page.get_by_role("button", name="Send").click()
        for cell in page.locator(".chat-row").nth(number).locator(".cell").all():
            expect(cell.locator(".note")).to_have_text(re.compile("·"), timeout=60_000)
    page.get_by_label("Show differences from").select_option("demo:base")


def guide(page: Page) -> None:
    """The guide's top."""
    page.get_by_role("tab", name="Guide").click()
    page.locator("#guide").wait_for()


def shoot(url: str, folder: Path) -> list[Path]:
    """Takes every picture of the app at `url`."""
    made = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for width, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
            for scene in (explore, merge, chat, guide):
                page = browser.new_page(viewport=viewport, reduced_motion="reduce")
                page.goto(url)
                page.get_by_role("tab", name="Explore").wait_for()
                scene(page)
                page.wait_for_timeout(700)
                made.append(folder / f"{scene.__name__}-{width}.png")
                page.screenshot(path=made[-1])
                page.close()
        page = browser.new_page(viewport=DESKTOP, reduced_motion="reduce")
        page.goto(f"{url}?__theme=dark")
        explore(page)
        page.wait_for_timeout(700)
        made.append(folder / "explore-dark.png")
        page.screenshot(path=made[-1])
        browser.close()
    return made


def main() -> int:
    """Starts the app on a folder of its own, takes the pictures, and says what they weigh."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    models = Path(tempfile.gettempdir()) / "amalgam" / "models"  # a path fit to be seen
    shutil.rmtree(models, ignore_errors=True)
    command = [sys.executable, "app.py", "--port", "0", "--models", str(models)]
    app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert app.stdout is not None
        address = next(line.split()[-1] for line in app.stdout if "http://" in line)
        made = shoot(address, folder)
    finally:
        app.terminate()
        app.wait(20)
        shutil.rmtree(models.parent, ignore_errors=True)
    heavy = [path for path in made if path.stat().st_size > MAX_BYTES]
    for path in made:
        print(f"{path.stat().st_size:>8}  {path}")
    if heavy:
        print(f"larger than {MAX_BYTES} bytes: {', '.join(map(str, heavy))}", file=sys.stderr)
    return 1 if heavy else 0


if __name__ == "__main__":
    sys.exit(main())
