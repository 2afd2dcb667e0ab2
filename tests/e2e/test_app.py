"""The page as a whole: first paint, keyboard, dark, phone, and what it offers to the outside."""

from __future__ import annotations

import json
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.e2e.conftest import DESKTOP, PHONE, RunningApp, sideways

TABS = ("Explore", "Merge", "Chat", "History", "Guide")


@pytest.fixture
def page(shared_page):
    """The page that these tests share, on its first tab."""
    shared_page.get_by_role("tab", name="Explore").click()
    return shared_page


def test_the_first_screen_is_explore_and_drawn(page) -> None:
    assert page.title() == "Amalgam"
    assert page.get_by_role("tab", name="Explore").get_attribute("aria-selected") == "true"
    page.locator("#map .js-plotly-plot .main-svg").first.wait_for()


def test_every_tab_opens_without_an_error(page) -> None:
    for name in TABS:
        page.get_by_role("tab", name=name).click()
        assert page.get_by_role("tab", name=name).get_attribute("aria-selected") == "true"
        assert sideways(page) <= 0, name


def test_tabs_are_reached_by_keyboard(page) -> None:
    page.get_by_role("tab", name="Merge").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Recipe (YAML)").wait_for()


def test_own_styles_are_served(page) -> None:
    height = page.locator("#brand").evaluate("n => getComputedStyle(n).position")
    assert height == "absolute"


def test_guide_holds_every_knob(page) -> None:
    from merging.methods import CONSENSUS, PRUNERS

    page.get_by_role("tab", name="Guide").click()
    text = page.locator("#guide").inner_text()
    for axis in (*PRUNERS.values(), *CONSENSUS.values()):
        assert axis.title in text
        for knob in axis.knobs:
            assert knob.info in text


COLOURS = """() => {
  const canvas = document.querySelector('#first canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 3] === 255) seen.add(data.slice(at, at + 3).join());
  return seen.size;
}"""


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_real_histograms_stand_first_and_give_way(open_page, app, viewport) -> None:
    page = open_page(goto=False, viewport=viewport)
    held: list = []
    script = "**/plotly-*.min.js"
    page.route(script, lambda route: held.append(route))
    with page.expect_request(script):
        page.goto(app.url, wait_until="commit")
    page.locator("#first h2 em").first.wait_for()
    assert page.evaluate(COLOURS) > 50  # shades of grey, and of every expert's colour
    place = page.locator("#first canvas").bounding_box()
    held[0].continue_()
    page.locator("#map .js-plotly-plot .main-svg").first.wait_for()
    page.locator("#first").wait_for(state="detached")
    live = page.locator("#map .plot").bounding_box()
    assert abs(place["x"] - live["x"]) < 12
    assert abs(place["y"] - live["y"]) < 16


def test_no_file_of_the_machine_is_served(app: RunningApp) -> None:
    for path in ("/etc/passwd", "app.py", str(app.models / "base" / "config.json")):
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{app.url}gradio_api/file={path}")
        assert caught.value.code in (403, 404), path


def test_nothing_is_offered_as_an_api(app: RunningApp) -> None:
    with urlopen(f"{app.url}gradio_api/info") as answer:
        info = json.load(answer)
    assert info["named_endpoints"] == {}
    assert info["unnamed_endpoints"] == {}
