"""Explore as it stands on a screen: first paint, phone, columns, dark."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import DESKTOP, PHONE, sideways
from tests.e2e.explore_page import EXPERTS, PLOT, finding, first_screen, rate, ready, step, until


@pytest.fixture
def page(shared_page):
    """Explore as the first screen shows it, on the page that these tests share."""
    return first_screen(shared_page)


def test_three_columns_scroll_by_themselves_and_a_narrower_page_has_a_drawer(page) -> None:
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
    merge = page.get_by_role("button", name="Merge", exact=True)
    rate(page).scroll_into_view_if_needed()
    for part in (merge, rate(page), page.locator("#map .plot"), page.locator("#live")):
        expect(part).to_be_in_viewport()  # the slider, the map and the live merge on one screen
    page.set_viewport_size({"width": 1024, "height": 768})
    live = page.locator("#live")
    expect(live).to_be_hidden()
    handle = page.get_by_role("button", name="Live", exact=True)
    handle.click()
    expect(live).to_be_visible()
    assert sideways(page) <= 0
    page.keyboard.press("Escape")
    expect(live).to_be_hidden()
    expect(handle).to_be_focused()
    page.set_viewport_size(DESKTOP)
    expect(live).to_be_visible()


def luminance(colour: str) -> float:
    red, green, blue = (int(part) for part in colour.strip("rgb()").split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_a_page_that_turns_dark_draws_in_dark_colours(page) -> None:
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    until(page, "amalgamFigures.palette().ink[0] > 150 && amalgamFigures.palette().card[0] < 60")
    heat = f"{PLOT}.data[0].colorscale[0][1].match(/\\d+/g).every((part) => part < 80)"
    until(page, heat)  # what is pruned, drawn anew
    assert page.evaluate(f"{PLOT}.layout.paper_bgcolor") == "rgba(0,0,0,0)"
    page.get_by_role("tab", name="Guide").click()
    card = page.locator("#guide .card").first
    card.wait_for()
    colours = card.evaluate("n => [getComputedStyle(n).color, getComputedStyle(n).backgroundColor]")
    assert luminance(colours[0]) > 0.8
    assert luminance(colours[1]) < 0.2
    page.emulate_media(color_scheme="light", reduced_motion="reduce")


def test_the_first_screen_shows_four_real_histograms(open_page, app) -> None:
    page = open_page(goto=False)
    held = []  # no callback is answered before the first drawing: it must not wait for one
    page.route("**/run/predict*", lambda route: held.append(route))
    page.goto(app.url)
    ready(page)
    for route in held:
        route.continue_()
    page.unroute("**/run/predict*")
    heats = page.evaluate(f"{PLOT}.data.filter(t => t.meta.role === 'heat').map(t => t.z.length)")
    assert heats == [4] * 4
    titles = page.evaluate(f"{PLOT}.layout.annotations.map(a => a.text).join()")
    assert all(name in titles for name in EXPERTS)
    assert finding(page).startswith("Keeps 30 % of the entries")


def test_a_phone_has_three_steps_and_no_sideways_scroll(open_page) -> None:
    page = open_page(viewport=PHONE)
    ready(page)
    assert sideways(page) <= 0
    parts = ("#map", ".controls .scroll", "#energy")
    tops = [page.locator(part).first.bounding_box()["y"] for part in parts]
    assert tops == sorted(tops)
    assert page.locator("#map").bounding_box()["height"] < 0.5 * PHONE["height"]
    for box in page.locator(
        "#map .tools > *, .controls :is(.segmented label, .options label, summary):visible, "
        ":is(.steps, .bench, .verbs) button:visible"
    ).all():
        assert box.bounding_box()["height"] >= 43.5
    base, live = page.get_by_label("Base", exact=True), page.locator("#live")
    expect(base).to_be_hidden()
    expect(page.get_by_role("button", name="Merge", exact=True)).to_be_in_viewport()
    step(page, "Models")
    expect(base).to_be_visible()
    expect(page.locator("#map")).to_be_hidden()
    step(page, "Live")
    expect(live).to_be_visible()
    expect(base).to_be_hidden()
    step(page, "Shape")
    expect(page.locator("#map .main-svg").first).to_be_visible()
    for name in ("Merge", "Chat", "History", "Guide"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(300)
        assert sideways(page) <= 0, name
