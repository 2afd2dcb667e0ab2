"""What Explore holds is a recipe: kept, linked, opened, undone, and handed to Merge."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.explore_page import (
    PLOT,
    SETTLED,
    choose_preset,
    chosen,
    finding,
    first_screen,
    move,
    rate,
    ready,
)

OPENED = """
merge_method: ties
base_model: demo:base
models:
- {model: demo:add, parameters: {density: 0.4}}
- {model: demo:sort, parameters: {density: 0.4, weight: [0.5, 1.0]}}
dtype: bfloat16
"""


@pytest.fixture
def page(shared_page):
    """Explore as the first screen shows it, on the page that these tests share."""
    return first_screen(shared_page)


def test_a_reload_loses_nothing(page) -> None:
    move(page, lambda: rate(page).press("ArrowRight"))
    group = page.get_by_role("group", name="Experts")
    group.get_by_label("sort", exact=True).uncheck(force=True)
    page.wait_for_function("amalgam.state.family?.looks.length === 3")
    page.wait_for_function("localStorage.getItem('amalgam-explore')?.length > 100")
    sentence = finding(page)
    page.wait_for_timeout(300)  # what is kept is written after it is shown
    page.reload()
    page.wait_for_function("amalgam?.state.family?.looks.length === 3")
    ready(page)
    expect(rate(page)).to_have_value("0.71")
    expect(group.get_by_label("sort", exact=True)).not_to_be_checked()
    expect(page.locator("#headline h2")).to_have_text(sentence)


def at_rest(page) -> None:
    """Waits until the address holds the recipe of the controls."""
    page.wait_for_function(SETTLED)
    page.wait_for_timeout(300)


def test_a_link_brings_everything_back_and_back_goes_back(page) -> None:
    other = "last => location.href !== last"
    first = page.url
    move(page, lambda: rate(page).press("ArrowRight"))
    page.wait_for_function(other, arg=first)
    one = page.url
    move(page, lambda: rate(page).press("ArrowRight"))
    page.wait_for_function(other, arg=one)
    two, sentence = page.url, finding(page)
    page.evaluate("history.back()")
    expect(rate(page)).to_have_value("0.71", timeout=20_000)
    at_rest(page)
    assert page.url == one
    page.goto("about:blank")
    page.goto(two)
    ready(page)
    expect(rate(page)).to_have_value("0.72", timeout=20_000)
    page.wait_for_function(SETTLED)
    assert finding(page) == sentence
    page.goto("about:blank")
    page.goto(f"{two[: two.index('#')]}#r=nonsense")
    ready(page)
    words = page.locator("#bench-words [role=status]")
    expect(words).to_contain_text("The recipe of this address cannot be opened")


def test_a_recipe_is_opened_in_the_controls_and_what_they_do_not_show_is_kept(page) -> None:
    page.get_by_role("tab", name="Merge").click()
    text = page.get_by_label("Recipe (YAML)")
    text.fill(OPENED)
    page.get_by_role("button", name="Show in Explore").click()
    page.wait_for_function(f"amalgam.state.family?.experts === 2 && {SETTLED}", timeout=20_000)
    page.wait_for_function("amalgam.state.values.rate === 0.6")
    words = page.locator(".kept-words [role=status]")
    expect(words).to_contain_text("type bfloat16")
    expect(words).to_contain_text("weight of sort varied along the model instead of 0.75")
    move(page, lambda: rate(page).press("ArrowRight"))
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(text).to_have_value(re.compile(r"density: 0\.39"))
    expect(text).to_have_value(re.compile("dtype: bfloat16"))
    page.get_by_role("tab", name="Explore").click()
    page.get_by_role("button", name="Leave it out").click()
    expect(words).to_be_empty()
    page.get_by_role("tab", name="Merge").click()
    text.fill(OPENED.replace("demo:sort", "demo:nobody"))
    page.get_by_role("button", name="Show in Explore").click()
    expect(page.locator("#bench-words [role=status]")).to_contain_text("'demo:nobody' is not one")


def test_a_value_is_drawn_over_depth(page) -> None:
    page.get_by_role("button", name="Over depth").click()
    editor = page.locator(".gradient")
    editor.locator("select").select_option(label="Density of all")
    editor.get_by_role("button", name="More points").click()
    page.wait_for_function(f"{SETTLED} && amalgam.state.values.opened")
    before = page.evaluate(f"JSON.stringify({PLOT}.data[2].x)")
    point = editor.get_by_role("slider", name="Density of all, layer 3")
    point.focus()
    move(page, lambda: point.press("End"))  # all of the last layer is kept
    expect(editor.get_by_role("status")).to_contain_text("0.3, 1 from the first layer to the last")
    page.wait_for_function(f"JSON.stringify({PLOT}.data[2].x) !== {before!r}")
    expect(page.locator(".kept-words [role=status]")).to_contain_text("density varied along")
    move(page, lambda: rate(page).press("ArrowRight"))  # the slider says it for all again
    expect(page.locator(".kept-words [role=status]")).to_be_empty()
    expect(editor.get_by_role("status")).to_contain_text("everywhere")


def test_merge_takes_the_controls_as_they_stand(page) -> None:
    slider = rate(page)
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    page.get_by_role("button", name="Merge", exact=True).click()  # before anything has settled
    expect(page.get_by_label("Recipe (YAML)")).to_have_value(re.compile(r"density: 0\.28"))


def test_what_was_set_can_be_undone_and_held_beside_another(page) -> None:
    undo = page.get_by_role("button", name="Undo", exact=True)
    redo = page.get_by_role("button", name="Redo", exact=True)
    sentence = finding(page)
    move(page, lambda: rate(page).press("ArrowRight"))
    moved = finding(page)
    choose_preset(page, "slerp")  # takes two experts
    page.wait_for_function(f"amalgam.state.family?.experts === 2 && {SETTLED}")
    move(page, undo.click)
    page.wait_for_function(f"amalgam.state.family?.experts === 4 && {SETTLED}")
    expect(page.locator("#headline h2")).to_have_text(moved.replace(" %", "\u202f%"))
    expect(chosen(page, "Prune by", "dynamic")).to_be_checked()
    rate(page).focus()
    move(page, lambda: page.keyboard.press("Control+z"))
    expect(rate(page)).to_have_value("0.7")
    assert finding(page) == sentence
    move(page, redo.click)
    expect(rate(page)).to_have_value("0.71")
    page.locator("#side").get_by_label("B", exact=True).check(force=True)
    words = page.locator("#bench-words [role=status]")
    expect(words).to_have_text("A is the same.")
    move(page, lambda: rate(page).press("ArrowRight"))
    expect(words).to_contain_text("A has density 0.29 instead of 0.28. A keeps 29 % of the entries")
    other = f"{PLOT}.data.filter(t => t.meta.role === 'other')"
    page.wait_for_function(f"{other}.length === 4")  # A's cut, lower than B's, in every map
    assert page.evaluate(f"{other}.every((t, at) => t.x[0] < {PLOT}.data[3 * at + 2].x[0])")
    expect(page.locator("#map .note")).to_contain_text("Dashed: A\u2019s cut.")
    assert "Dashed: A\u2019s cut." in page.locator("#map .plot").get_attribute("aria-label")
    page.locator("#headline h2").click()
    move(page, lambda: page.keyboard.press("x"))
    expect(rate(page)).to_have_value("0.71")
    expect(page.locator("#side").get_by_label("A", exact=True)).to_be_checked()
    expect(words).to_contain_text("B has density 0.28 instead of 0.29. B keeps 28 % of the entries")
    page.wait_for_function(f"{other}.every((t, at) => t.x[0] > {PLOT}.data[3 * at + 2].x[0])")
