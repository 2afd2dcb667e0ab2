"""The tour in a real browser: from the first map to a merge that was kept and talked to."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.e2e.conftest import PHONE, sideways
from tests.e2e.explore_page import rate, ready


def card(page):
    return page.get_by_role("dialog", name="Tour")


def at(page, number: int, title: str) -> None:
    """Waits for a step, which takes the focus."""
    name = f"Tour, step {number} of 5: {title}"
    expect(page.get_by_role("dialog", name=name)).to_be_focused(timeout=60_000)


def test_from_the_map_to_a_kept_merge_that_answers_by_keyboard(open_page) -> None:
    page = open_page()
    ready(page)
    page.get_by_role("button", name="Take the tour").locator("visible=true").press("Enter")
    at(page, 1, "What each expert changed")
    card(page).get_by_role("button", name="Next").press("Enter")
    at(page, 2, "Move the pruning rate")
    card(page).get_by_role("button", name="Go to the slider").press("Enter")
    expect(rate(page)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    at(page, 3, "Switch Live on")  # by itself: it was done
    page.set_viewport_size(PHONE)
    assert sideways(page) <= 0
    card(page).get_by_role("button", name="Back").press("Enter")
    at(page, 2, "Move the pruning rate")
    card(page).get_by_role("button", name="Next").press("Enter")
    at(page, 3, "Switch Live on")  # on a phone in another part of the page
    card(page).get_by_role("button", name="Go to the switch").press("Enter")
    page.keyboard.press("Space")
    at(page, 4, "Keep the merge")
    card(page).get_by_role("button", name="Go to the name").press("Enter")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("toured")
    page.keyboard.press("Enter")
    at(page, 5, "Talk to it")
    card(page).get_by_role("button", name="Go there").press("Enter")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="models/toured")).to_be_visible()
    card(page).get_by_role("button", name="Go there").press("Enter")
    page.keyboard.type("What is 37 + 45?")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="Tour: That was all")).to_be_focused(timeout=60_000)
    page.keyboard.press("Escape")
    expect(card(page)).to_have_count(0)


def test_it_is_offered_once_and_leaving_the_tab_ends_it(open_page) -> None:
    page = open_page()
    ready(page)
    page.get_by_role("button", name="No tour, thank you").click()
    page.reload()
    ready(page)
    start = page.get_by_role("button", name="Take the tour").locator("visible=true")
    expect(start).to_have_count(0)
    page.get_by_role("tab", name="Guide").click()
    start.click()
    at(page, 1, "What each expert changed")  # in Explore
    page.get_by_role("tab", name="Merge").click()
    expect(card(page)).to_have_count(0)
    expect(page.get_by_role("tab", name="Merge")).to_be_focused()
