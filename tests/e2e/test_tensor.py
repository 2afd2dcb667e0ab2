"""One tensor's page in a real browser: numbers, and a value that lands in the recipe."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import PHONE, sideways
from tests.e2e.explore_page import SETTLED, ready


@pytest.fixture
def page(shared_page):
    """Explore, with layer 1's down matrix chosen in the histogram."""
    ready(shared_page)
    shared_page.get_by_label("Layer of the histogram").select_option(label="Layer 1")
    shared_page.get_by_label("Module of the histogram").select_option(label="down")
    return shared_page


def test_a_cell_opens_its_numbers_and_a_value_lands_in_the_recipe(page) -> None:
    panel = page.get_by_role("region", name="This tensor")
    expect(panel.get_by_role("heading", name="This tensor: Layer 1, down")).to_be_visible()
    name = panel.locator("h4").inner_text()
    asked = panel.get_by_role("row", name="Density asked").get_by_role("cell")
    expect(asked).to_have_count(4)
    expect(panel.get_by_role("row", name="Unchanged")).to_contain_text("%")
    rate = page.evaluate("amalgam.state.values.rate")
    form = panel.get_by_role("form", name="A value for this part")
    form.get_by_label("for").select_option(label="this tensor alone")
    form.get_by_label("to", exact=True).fill("0.9")
    form.get_by_role("button", name="Set", exact=True).press("Enter")
    rule = form.locator(".tensor-rule")
    # set, planned and looked at again: three answers one after the other
    expect(rule).to_contain_text(f"0.9 for {name}", timeout=30_000)
    page.wait_for_function(SETTLED)
    assert "0.9" in page.evaluate("amalgam.state.values.opened")
    assert page.evaluate("amalgam.state.values.rate") == pytest.approx(rate)
    page.set_viewport_size(PHONE)
    assert sideways(page) <= 0
    page.set_viewport_size({"width": 1440, "height": 900})
    form.get_by_role("button", name="Take away: Density of all experts").press("Enter")
    expect(form.locator(".tensor-rule")).to_have_count(0, timeout=30_000)
    page.get_by_label("Module of the histogram").select_option(label="All modules")
    expect(panel).to_have_count(0)
