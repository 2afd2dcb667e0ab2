"""The live model in a real browser: a slider moves, and the merge answers otherwise."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import PHONE, sideways
from tests.e2e.explore_page import rate, ready, step

SKILLS = ("add", "reverse", "spanish", "sort")
SCORED = re.compile(r"^[\d.]+\s%$")


@pytest.fixture
def page(shared_page):
    """Explore with the live card on, every skill scored."""
    shared_page.get_by_role("tab", name="Explore").click()
    ready(shared_page)
    shared_page.get_by_label("Live: hear the merge answer").check()
    scored(shared_page)
    return shared_page


def scored(page) -> None:
    """Waits until the live model and its sources have said all: models load, and are asked."""
    # where the page asks twice while it loads, the second time finds the merge of the first
    merged = re.compile("Re-merged in |In memory as these settings say")
    status = page.locator("#live-meters").get_by_role("status")
    expect(status).to_contain_text(merged, timeout=60_000)
    for skill in SKILLS:
        expect(shares(page, skill)).to_have_text([SCORED], timeout=60_000)
    expect(page.locator("#live-meters .tick.expert")).to_have_count(len(SKILLS), timeout=60_000)


def meter(page, skill: str):
    return page.get_by_role("meter", name=skill, exact=True)


def shares(page, skill: str):
    return meter(page, skill).locator("b")


def probe(page, prompt: str):
    return page.get_by_role("region", name=prompt, exact=True)


def test_a_slider_moves_and_the_merge_answers_otherwise(page) -> None:
    before = int(meter(page, "add").get_attribute("aria-valuenow"))
    assert before > 20
    said = page.locator(".reply.live dd:nth-child(2)").all_inner_texts()
    page.locator("#live-meters").get_by_text("Table").click()
    rate(page).focus()
    page.keyboard.press("End")  # everything is pruned: the base is left
    expect(meter(page, "add")).to_have_attribute("aria-valuenow", "0", timeout=30_000)
    expect(meter(page, "add").locator("small")).to_have_text(f"\N{MINUS SIGN}{before}")
    live = page.locator(".reply.live:not(.is-stale) dd:nth-child(2)")
    expect(live).to_have_count(len(SKILLS), timeout=30_000)
    assert live.all_inner_texts() != said
    expect(page.locator(".reply.live mark").first).to_be_visible()
    assert page.get_by_role("region", name="How often they are right").is_visible()  # still open
    page.keyboard.press("Home")


def test_a_question_is_answered_pinned_and_remembered(page) -> None:
    page.get_by_label("Ask the live merge").fill("Reverse silver => revlis")
    page.get_by_label("Ask the live merge").press("Enter")
    asked = probe(page, "Reverse silver")
    expert = asked.locator(".reply", has_text="reverse")
    expect(expert.get_by_role("img", name="right")).to_have_count(1, timeout=30_000)
    asked.get_by_role("button", name="Pin: Reverse silver", exact=True).click()
    unpin = asked.get_by_role("button", name="Unpin: Reverse silver")
    expect(unpin).to_be_visible(timeout=30_000)
    page.reload()
    ready(page)
    page.get_by_label("Live: hear the merge answer").check()
    expect(unpin).to_be_visible(timeout=30_000)
    unpin.click()
    expect(asked).to_have_count(0, timeout=30_000)


def test_what_answers_is_kept_and_opened_in_chat(page) -> None:
    name = page.get_by_label("Name of the new model").locator("visible=true")
    expect(name).not_to_have_value("", timeout=30_000)  # one is proposed
    name.fill("heard")
    page.locator("#keep-beside").click()  # as the one in the card
    said = page.locator("#live-kept").get_by_role("status")
    expect(said).to_contain_text("Kept as heard", timeout=30_000)
    digest = re.search("[0-9a-f]{64}", said.locator("span").get_attribute("title"))[0]
    status = page.locator("#live-meters").get_by_role("status")
    expect(status).to_contain_text("kept as heard", timeout=30_000)
    assert digest in page.locator("#live-meters code").text_content()  # what lies in memory
    expect(name).to_have_value("heard-2")
    page.get_by_role("button", name="Open in Chat").click()
    expect(page.get_by_role("heading", name="models/heard")).to_be_visible()


def test_on_a_phone_it_fits_and_off_it_is_gone(page) -> None:
    viewport = page.viewport_size
    page.set_viewport_size(PHONE)
    step(page, "Live")
    assert sideways(page) <= 0
    page.set_viewport_size(viewport)
    page.get_by_label("Live: hear the merge answer").uncheck()
    expect(page.locator("#live-body")).to_be_hidden()
