"""Explore as tests drive it: its controls, and how to wait for what they do."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

EXPERTS = ("add", "reverse", "spanish", "sort")
SETTLED = "amalgam.state.exact !== null && !!amalgam.state.plan"
FIRST = """(({ prune, consensus, partitions, ...rest }) => prune === "dynamic" && partitions === 4
  && consensus === "sum" && rest["amplification.0"] === 1.7)(amalgam.state.values)"""
NOW = "JSON.stringify([amalgam.state.values, amalgam.state.family?.experts])"
PLOT = "document.querySelector('#map .plot')"


def until(page, condition: str, timeout: float = 20_000) -> None:
    """Waits for a condition of the page, asked 20 times a second: a browser that is asked at every
    frame draws frames for nothing."""
    page.wait_for_function(condition, polling=50, timeout=timeout)


def first_screen(page):
    """Explore as the first screen shows it, on a page that tests share."""
    page.get_by_role("tab", name="Explore").click()
    restore(page)
    return page


def restore(page) -> None:
    """Every control as at first: all experts, the first preset, nothing opened in the panels."""
    for box in page.get_by_role("group", name="Experts").get_by_role("checkbox").all():
        if box.locator("xpath=following-sibling::span").inner_text() in EXPERTS:
            box.set_checked(True, force=True)
    ready(page)
    until(page, f"{SETTLED} && amalgam.state.arrived", 60_000)  # all is there
    if not page.evaluate(f"window.first === {NOW}"):
        with page.expect_response("**/run/predict*"):  # else it may come after the first move
            page.locator(".presets input[value='dppa']").dispatch_event("change")
        expect(chosen(page, "Combine by", "sum")).to_be_checked()
        page.get_by_role("button", name="Reset to preset").dispatch_event("click")
        until(page, f"amalgam.state.family?.experts === {len(EXPERTS)}")
        until(page, f"amalgam.state.values.rate === 0.7 && {FIRST} && {SETTLED}")
        page.evaluate(f"window.first = {NOW}")
    for box in page.locator(".tools select").all():
        box.select_option(index=0)
    page.evaluate("amalgam.state.zoom = null")
    page.locator(".tools button[aria-pressed=true]").evaluate_all("all => all.map(b => b.click())")


def ready(page) -> None:
    """Waits for the first drawing of the map."""
    page.locator("#map .main-svg").first.wait_for()
    until(page, SETTLED)


def rate(page):
    return page.get_by_label("range slider for Pruning rate")


def move(page, press: Callable[[], None]) -> None:
    """Moves a control and waits for the server's answer to it."""
    moves = page.evaluate("amalgam.state.moves")
    press()
    until(page, f"amalgam.state.moves > {moves} && {SETTLED}")


def chosen(page, group: str, value: str):
    return page.get_by_role("group", name=group, exact=True).locator(f"input[value='{value}']")


def finding(page) -> str:
    return page.locator("#headline h2").inner_text().replace("\u202f", " ")


def unfolded(page, group: str, value: str):
    """A button of a choice in groups, its list and its group open."""
    button = chosen(page, group, value)
    opened(page, group)
    groups = page.get_by_role("group", name=group, exact=True).locator("details:not(.fold, [open])")
    folded = groups.filter(has=page.locator(f"input[value='{value}']"))
    if folded.count():
        folded.locator("summary").click()
    return button


def opened(page, group: str) -> None:
    """Unfolds a list of choices."""
    fold = page.get_by_role("group", name=group, exact=True).locator("details.fold")
    if fold.get_attribute("open") is None:
        fold.locator("> summary").click()


def choose(page, group: str, value: str) -> None:
    button = unfolded(page, group, value)
    move(page, button.check)


def choose_preset(page, preset: str) -> None:
    choose(page, "Preset", preset)


def step(page, name: str) -> None:
    """Goes to a step of the bar that phones have."""
    bar = page.get_by_role("navigation", name="Parts of the workbench")
    bar.get_by_role("button", name=name, exact=True).click()
