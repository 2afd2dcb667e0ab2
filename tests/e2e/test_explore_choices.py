"""What is chosen in Explore: presets, pruners, rules, tasks and experts."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from merging.declarations.methods import GROUPS
from tests.e2e.explore_page import (
    PLOT,
    SETTLED,
    choose,
    choose_preset,
    chosen,
    finding,
    first_screen,
    move,
    opened,
)


@pytest.fixture
def page(shared_page):
    """Explore as the first screen shows it, on the page that these tests share."""
    return first_screen(shared_page)


def test_a_preset_sets_both_axes_and_a_free_choice_leaves_it(page) -> None:
    choose_preset(page, "dare_ties")
    expect(chosen(page, "Prune by", "random")).to_be_checked()
    expect(chosen(page, "Combine by", "ties")).to_be_checked()
    choose(page, "Combine by", "pcb")
    page.wait_for_function("!document.querySelector('.presets input:checked')")
    page.locator("#words", has_text="Let them compete").wait_for()


def test_choices_stand_in_groups_that_fold(page) -> None:
    for choice in ("Preset", "Combine by"):
        group = page.get_by_role("group", name=choice, exact=True)
        opened(page, choice)
        titles = group.locator("details details summary")
        assert titles.all_inner_texts() == list(GROUPS.values())
        for title in GROUPS.values():  # by keyboard: open, and nothing is cut
            folded = group.locator("details details").filter(
                has=page.get_by_text(title, exact=True)
            )
            if folded.get_attribute("open") is None:
                folded.locator("summary").press("Enter")
        options = group.locator(".axis .options")
        for cut in options.evaluate_all("all => all.map(o => o.scrollHeight - o.clientHeight)"):
            assert cut <= 0
    choose_preset(page, "emr")
    assert page.locator(".presets input:checked").count() == 1
    expect(chosen(page, "Combine by", "emr")).to_be_checked()


def test_a_blend_sets_the_pruner_aside_and_says_so(page) -> None:
    told = page.locator(".paired [role=status]")
    choose(page, "Combine by", "karcher")
    expect(chosen(page, "Prune by", "none")).to_be_checked()
    expect(told).to_contain_text("nothing is pruned before it")
    page.wait_for_function(f"amalgam.state.values.prune === 'none' && {SETTLED}")
    assert finding(page).startswith("Keeps every change")
    choose(page, "Combine by", "slerp")
    expect(told).to_contain_text("spanish and sort are left out")
    page.wait_for_function(f"amalgam.state.family?.experts === 2 && {SETTLED}")
    choose(page, "Combine by", "ties")
    expect(chosen(page, "Prune by", "dynamic")).to_be_checked()
    page.wait_for_function(f"amalgam.state.family?.experts === 4 && {SETTLED}")
    assert finding(page).startswith("Keeps 30 %")
    choose(page, "Combine by", "karcher")
    choose(page, "Prune by", "random")
    expect(chosen(page, "Combine by", "ties")).to_be_checked()
    expect(told).to_contain_text("takes no pruned changes")


def test_a_task_is_chosen_by_its_experts_name(page) -> None:
    choose_preset(page, "emr")
    page.get_by_role("button", name="More: EMR-Merging").click()
    task = page.get_by_role("group", name="Task", exact=True)
    move(page, lambda: task.get_by_label("spanish", exact=True).check(force=True))
    page.get_by_label("add", exact=True).first.uncheck(force=True)
    page.wait_for_function("amalgam.state.family?.experts === 3")
    expect(task.get_by_label("spanish", exact=True)).to_be_checked()
    expect(task.get_by_label("add", exact=True)).to_have_count(0)


def test_arrow_keys_move_inside_a_group_of_choices(page) -> None:
    group = page.get_by_role("group", name="Prune by")
    opened(page, "Prune by")
    group.get_by_label("Dynamic").focus()
    move(page, lambda: page.keyboard.press("ArrowLeft"))
    assert group.get_by_label("Magnitude").is_checked()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.type") != "radio"
    opened(page, "Combine by")
    groups = page.get_by_role("group", name="Combine by").locator("details details summary")
    groups.filter(has_text=GROUPS["elect"]).press("Enter")
    page.keyboard.press("Tab")
    move(page, lambda: page.keyboard.press("Space"))
    expect(chosen(page, "Combine by", "ties")).to_be_checked()


def test_the_first_screen_is_one_click_away(page) -> None:
    sentence = finding(page)
    choose_preset(page, "ties")
    assert finding(page) != sentence
    choose_preset(page, "dppa")
    page.wait_for_timeout(500)
    assert finding(page) == sentence


def test_an_expert_left_out_leaves_the_plots(page) -> None:
    page.get_by_label("sort", exact=True).uncheck(force=True)
    page.wait_for_function(f"amalgam.state.family.experts === 3 && {PLOT}.data.length === 10")
    page.get_by_label("add", exact=True).uncheck(force=True)
    page.wait_for_function(f"amalgam.state.family.experts === 2 && {PLOT}.data.length === 7")
    assert page.evaluate("amalgam.state.family.looks.map(l => l.name)") == ["reverse", "spanish"]


def test_strength_and_rule_change_what_arrives(page) -> None:
    drift = "amalgam.state.arrived && amalgam.state.arrival?.drift[0]"
    page.wait_for_function(drift)
    before = page.evaluate(drift)
    line = page.locator("#headline .arrives")
    told = line.inner_text()
    assert told.startswith("Merging moves linear layers by ")
    strength = page.get_by_label("range slider for Strength")
    move(page, lambda: strength.press("ArrowRight"))
    expect(line).not_to_have_text(told)
    expect(line).not_to_have_class("arrives is-stale")
    page.wait_for_function(drift)
    values = page.evaluate("amalgam.state.values")
    assert page.evaluate(drift) == pytest.approx(before * values["lambda"] / 0.4, rel=1e-3)
    heat = f"{PLOT}.data.find(t => t.meta.role === 'merged')"
    drawn = page.evaluate(f"JSON.stringify({heat}.z)")
    choose(page, "Combine by", "ties")
    page.wait_for_function(f"{drift} && JSON.stringify({heat}.z) !== {drawn!r}")
    choose(page, "Combine by", "tsv_m")
    page.wait_for_function("amalgam.state.arrived && !amalgam.state.arrival")
    note = page.locator("#drift .note")
    expect(note).to_have_text("Not predicted: this method works on whole matrices.")
    expect(line).to_have_text(
        "How far the merge moves: not predicted: this method works on whole matrices."
    )


def test_what_is_looked_at_stays_when_experts_come_and_go(page) -> None:
    page.locator("#map select").select_option(label="Layer 2")
    page.get_by_label("Expert", exact=True).select_option(label="spanish")
    page.get_by_label("add", exact=True).uncheck(force=True)
    page.wait_for_function("amalgam.state.family.experts === 3")
    page.wait_for_function(f"{PLOT}.data.length === 10 && {PLOT}.data[0].z.length === 7")
    chosen = "[...document.querySelectorAll('.tools select')].map(s => s.selectedOptions[0].text)"
    assert {"Layer 2", "spanish"} <= set(page.evaluate(chosen))
