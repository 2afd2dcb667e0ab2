"""The live model in a real browser: a slider moves, and the merge answers otherwise."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.e2e.conftest import PHONE, sideways
from tests.e2e.test_explore import rate, ready


def test_a_slider_moves_and_the_merge_answers_otherwise(page) -> None:
    ready(page)
    switch = page.get_by_label("Live: hear the merge answer while you move a slider")
    expect(switch).not_to_be_checked()
    switch.check()
    status = page.locator("#live-board").get_by_role("status")
    # where the page asks twice while it loads, the second time finds the merge of the first
    merged = re.compile("39 tensors rewritten in |is that of these settings already")
    expect(status).to_contain_text(merged, timeout=30_000)
    skills = page.get_by_role("region", name="How often they are right")
    answers = page.get_by_role("region", name="What they answer")
    # the live model, the base and four experts, which are loaded and asked
    expect(skills.locator("b")).to_have_count(4 * 6, timeout=60_000)
    live = skills.locator("td:nth-child(2) b")
    before, said = live.all_inner_texts(), answers.locator("td:nth-child(2)").all_inner_texts()
    assert before[0] != "0%"
    rate(page).focus()
    page.keyboard.press("End")  # everything is pruned: the base is left
    expect(live).to_have_text(["0%"] * 4, timeout=30_000)
    assert answers.locator("td:nth-child(2)").all_inner_texts() != said
    assert answers.locator("td:nth-child(3)").all_inner_texts() == (
        answers.locator("td:nth-child(2)").all_inner_texts()
    )
    prompts = page.get_by_label("Prompts, one per line")
    prompts.fill("Reverse silver => revlis")
    prompts.blur()
    expect(answers.get_by_role("rowheader")).to_have_text(["Reverse silver"], timeout=30_000)
    right = answers.get_by_role("img", name="right")
    expect(right).to_have_count(1, timeout=30_000)  # the expert's
    page.set_viewport_size(PHONE)
    assert sideways(page) <= 0
    switch.uncheck()
    expect(page.locator("#live-board")).to_be_hidden()
