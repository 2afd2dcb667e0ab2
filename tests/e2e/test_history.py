"""What was kept and bookmarked: opened again, compared, noted on, renamed, deleted, taken back."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.e2e.conftest import PHONE, RunningApp, sideways
from tests.e2e.test_merge import DEMO, SLOW, open_merge, start, status


def history(page) -> None:
    page.get_by_role("tab", name="History").click()
    expect(page.locator("article.entry").first).to_be_visible()


def entry(page, name: str):
    return page.get_by_role("article", name=name, exact=True)


def said(page):
    return page.locator("#history-said")


def bookmark(page) -> str:
    page.get_by_role("tab", name="Explore").click()
    page.get_by_role("button", name="Bookmark").click()
    words = page.locator("#marked [role=status]")
    expect(words).to_contain_text("Bookmarked as ")
    name = re.search(r"Bookmarked as (\S+):", words.inner_text())
    assert name is not None
    return name.group(1)


def test_a_merge_and_a_bookmark_are_compared_and_opened_again(shared_page, app) -> None:
    page = shared_page
    name = bookmark(page)
    open_merge(page, DEMO, "for-history")
    start(page)
    expect(status(page)).to_contain_text("for-history is ready", timeout=60_000)
    result = page.locator("#merge-result")
    expect(result).to_contain_text("changes of")
    history(page)
    made, marked = entry(page, "Model for-history"), entry(page, f"Bookmark {name}")
    expect(made).to_contain_text("moved most")
    expect(made.get_by_role("button", name="Copy the fingerprint")).to_contain_text("sha256:")
    for one in (made, marked):
        one.get_by_label("Compare").check()
    comparison = page.locator("#comparison")
    expect(comparison).to_contain_text(f"for-history and {name}")
    expect(comparison).to_contain_text("Dynamic instead of Magnitude")
    made.get_by_role("button", name="Open for-history in Explore").click()
    expect(page.get_by_role("tab", name="Explore")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#words")).to_contain_text("demo:add and demo:sort")
    page.get_by_role("button", name="Undo", exact=True).click()


def test_what_is_deleted_comes_back_under_its_name(shared_page, app: RunningApp) -> None:
    page = shared_page
    name = bookmark(page)
    history(page)
    marked = entry(page, f"Bookmark {name}")
    marked.get_by_text("Name and note").click()
    marked.get_by_role("textbox", name="Note").fill("<b>the</b> first")
    marked.get_by_role("button", name="Save the note").click()
    expect(said(page)).to_contain_text("is saved")
    expect(marked.locator(".note-text")).to_have_text("<b>the</b> first")
    marked.get_by_role("textbox", name="Name").fill("a/b")
    marked.get_by_role("button", name="Rename").click()
    expect(said(page)).to_contain_text("letters, digits")
    marked.get_by_role("textbox", name="Name").fill("first-try")
    marked.get_by_role("button", name="Rename").click()
    renamed = entry(page, "Bookmark first-try")
    renamed.get_by_role("button", name="Delete first-try").click()
    expect(renamed).to_have_count(0)
    page.get_by_role("button", name="Undo deleting first-try").click()
    expect(renamed.locator(".note-text")).to_have_text("<b>the</b> first")
    page.set_viewport_size(PHONE)
    assert sideways(page) <= 0
    for button in renamed.get_by_role("button").all():
        if button.is_visible():
            assert button.bounding_box()["height"] >= 43.5
    page.set_viewport_size({"width": 1440, "height": 900})


def test_a_merge_shows_on_every_tab_of_every_page(shared_page, open_beside) -> None:
    page = shared_page
    open_merge(page, SLOW, "seen")
    start(page)
    page.get_by_role("tab", name="Guide").click()
    running = page.locator("#running")
    expect(running.get_by_role("status")).to_have_text("Merging seen")
    other = open_beside()
    there = other.locator("#running").get_by_role("button")
    expect(there).to_have_accessible_name(re.compile("Another page is merging seen: "))
    there.click()
    expect(other.get_by_role("tab", name="Merge")).to_have_attribute("aria-selected", "true")
    running.get_by_role("button").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    for bar in (running, other.locator("#running")):
        expect(bar.get_by_role("button")).to_have_count(0)
