"""Explore in a real browser: plots that follow the slider, numbers that agree with the engine."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.explore_page import (
    EXPERTS,
    PLOT,
    SETTLED,
    choose,
    finding,
    first_screen,
    move,
    rate,
    ready,
)


@pytest.fixture
def page(shared_page):
    """Explore as the first screen shows it, on the page that these tests share."""
    return first_screen(shared_page)


def test_numbers_of_the_finding_stand_in_its_sentence(page) -> None:
    assert page.locator("#headline em").evaluate_all(
        "all => all.every((em) => getComputedStyle(em).display === 'inline')"
    )


def test_the_page_is_light(page) -> None:
    assert page.evaluate("JSON.stringify(window.gradio_config).length") < 1_000_000


def test_the_map_follows_the_slider_on_one_node(page) -> None:
    page.evaluate(f"{PLOT}.mark = 1")
    before = page.evaluate(f"{PLOT}.data[2].x[0]")
    rate(page).focus()
    move(page, lambda: rate(page).press("ArrowRight"))
    page.wait_for_function(f"{PLOT}.data[2].x[0] > {before}")
    assert page.evaluate(f"{PLOT}.mark") == 1
    assert finding(page).startswith("Keeps 29 % of the entries")


def test_a_drag_is_drawn_in_the_browser_and_settled_once(page) -> None:
    page.evaluate(
        "window.asked = 0; const f = window.fetch;"
        "window.fetch = (u, ...a) => { asked += String(u.url || u).includes('predict');"
        "return f(u, ...a); }; 0"
    )
    page.evaluate(f"window.shown = 0; {PLOT}.addEventListener('amalgam-shown', () => shown++); 0")
    rate(page).scroll_into_view_if_needed()
    box = rate(page).bounding_box()
    y = box["y"] + box["height"] / 2

    def drag() -> None:
        page.mouse.move(box["x"] + 0.8 * box["width"], y)
        page.mouse.down()
        for point in range(30):
            page.mouse.move(box["x"] + (0.8 - 0.02 * point) * box["width"], y)
        page.mouse.up()

    move(page, drag)
    assert page.evaluate("shown") >= 10
    assert page.evaluate("asked < shown")  # it asks when the hand rests, not at every move


def test_the_map_is_painted_while_a_slider_moves_and_drawn_when_it_rests(page) -> None:
    seen = page.evaluate("""async () => {
      let drawn = 0;
      const react = Plotly.react, node = document.querySelector('#map .plot');
      Plotly.react = (of, ...rest) => { drawn += of === node; return react(of, ...rest); };
      const slider = document.querySelector('#control-rate input[type=range]');
      const first = slider.value, blue = [], shown = [];
      /* How much of the first expert's plot is in its colour, as painted. */
      const coloured = () => {
        const canvas = node.querySelector('canvas.painted');
        if (!canvas || canvas.hidden) return null;
        const { width, height } = canvas;
        const { data } = canvas.getContext('2d').getImageData(0, 0, width / 5, height);
        let count = 0;
        for (let at = 0; at < data.length; at += 4) count += data[at + 2] - data[at] > 60;
        return count;
      };
      for (let step = 0; step < 12; step++) {
        const painted = new Promise((done) => {
          node.addEventListener('amalgam-shown', done, { once: true });
        });
        slider.value = String(0.3 + 0.05 * step);
        slider.dispatchEvent(new Event('input', { bubbles: true }));
        await painted;
        blue.push(coloured());
      }
      const moving = drawn;
      slider.value = first;
      slider.dispatchEvent(new Event('input', { bubbles: true }));
      Plotly.react = react;
      return { blue, moving };
    }""")
    painted = [count for count in seen["blue"] if count is not None]
    assert len(painted) >= 9  # a busy machine takes a pause for a rest
    assert painted == sorted(painted, reverse=True)  # the more is pruned, the less is coloured
    assert painted[-1] < painted[0] / 2
    assert seen["moving"] <= len(seen["blue"]) - len(painted)
    page.wait_for_function("document.querySelector('#map canvas.painted').hidden")  # it is drawn


def test_pruners_are_drawn_as_what_they_are(page) -> None:
    choose(page, "Prune by", "random")
    strokes = "t => !['heat', 'merged'].includes(t.meta.role) && t.x.length"
    assert page.evaluate(f"{PLOT}.data.filter({strokes}).length") == 0
    assert "at random" in page.locator("#map .note").inner_text()
    assert "Keeps 30 % of the entries and 30 % of the energy" in finding(page)
    choose(page, "Prune by", "none")
    assert finding(page).startswith("Keeps every change")
    assert not rate(page).is_visible()
    choose(page, "Prune by", "magnitude")
    assert (
        page.evaluate(f"{PLOT}.data.filter(t => t.meta.role === 'cut' && t.x.length).length") == 4
    )


def test_partitions_show_their_sliders_and_lines(page) -> None:
    slider = page.get_by_label("range slider for Partitions")
    slider.focus()
    move(page, lambda: slider.press("ArrowRight"))
    page.get_by_label("range slider for top 6 %").wait_for()
    page.get_by_label("range slider for 24\N{EN DASH}30 %").wait_for()
    lines = page.evaluate(f"{PLOT}.data[1].x.filter(v => v !== null).length")
    assert 24 < lines <= 4 * 4 * 2  # up to 4 bounds in 4 layers, two points each


def test_amplification_is_told_and_drawn(page) -> None:
    note = "document.querySelector('#energy .plot').layout.annotations[0].text"
    first, colour = page.evaluate(note), page.evaluate(f"JSON.stringify({PLOT}.data[0].z)")
    slider = page.get_by_label("range slider for top 7.5 %")
    slider.focus()
    move(page, lambda: [slider.press("PageUp") for _ in range(2)])
    page.wait_for_function(f"{note} !== {first!r}")
    assert "amplified" in page.evaluate(note)
    assert page.evaluate(f"JSON.stringify({PLOT}.data[0].z)") != colour


def test_a_number_out_of_range_is_clamped_without_a_complaint(page) -> None:
    move(page, lambda: page.get_by_label("number input for Pruning rate").fill("7"))
    page.wait_for_timeout(300)
    assert rate(page).input_value() == "0.99"
    assert page.get_by_test_id("toast-body").count() == 0


def test_an_emptied_number_keeps_what_it_had(page) -> None:
    sentence = finding(page)
    for name, value in (("Pruning rate", "0.7"), ("Partitions", "4")):
        box = page.get_by_label(f"number input for {name}")
        box.fill("")
        page.wait_for_timeout(400)
        assert finding(page) == sentence
        box.blur()
        expect(box).to_have_value(value)
    page.wait_for_timeout(400)
    assert page.evaluate("amalgam.state.values.rate") == 0.7
    assert finding(page) == sentence
    assert page.get_by_test_id("toast-body").count() == 0


HISTOGRAM = "document.querySelector('#histogram .plot')"


def cut(page):
    return page.get_by_role("slider", name="Pruning rate, as the cut of")


def test_the_cut_in_the_histogram_moves_the_rate(page) -> None:
    cut(page).scroll_into_view_if_needed()
    box = cut(page).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag() -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        for point in range(1, 11):
            page.mouse.move(x - 8 * point, y)
        page.mouse.up()

    move(page, drag)
    now = float(cut(page).get_attribute("aria-valuenow"))
    assert 0 < now < 0.65
    expect(rate(page)).to_have_value(re.compile(rf"0?{now:g}0?"))  # Gradio's own slider followed
    assert finding(page).startswith(f"Keeps {100 - round(100 * now)} % of the entries")
    expect(page.get_by_label("number input for Pruning rate")).to_have_value(f"{now:g}")
    page.wait_for_timeout(600)  # Gradio's own word on it has been heard
    assert page.evaluate("amalgam.state.values.rate") == now
    cut(page).focus()
    move(page, lambda: cut(page).press("ArrowRight"))
    assert page.evaluate("amalgam.state.values.rate") == pytest.approx(now + 0.01)
    move(page, lambda: cut(page).press("End"))
    expect(rate(page)).to_have_value("0.99")


def test_the_histogram_shows_what_was_clicked(page) -> None:
    assert page.evaluate(f"{HISTOGRAM}.data.filter(t => t.type === 'bar').length") == 2
    page.locator("#retention .plot").scroll_into_view_if_needed()
    box = page.locator("#retention .plot").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator("#histogram figcaption")
    expect(told).to_contain_text(re.compile(r"Layer \d, \w+ of add: [\d,]+ entries"))
    page.get_by_label("Expert of the histogram").select_option(label="sort")
    expect(told).to_contain_text("of sort:")
    page.get_by_label("Bars count").select_option(label="Counts")
    page.wait_for_function(f"{HISTOGRAM}.layout.yaxis.title.text === 'entries per doubling'")
    page.get_by_label("Height").select_option(label="Log")
    page.wait_for_function(f"{HISTOGRAM}.layout.yaxis.type === 'log'")
    wide = page.evaluate(f"{HISTOGRAM}.layout.xaxis.range")
    page.locator("#histogram").get_by_role("button", name="Zoom in").click()
    page.wait_for_function(f"{HISTOGRAM}.layout.xaxis.range[1] < {wide[1]}")
    page.locator("#histogram").get_by_role("button", name="Show all magnitudes").click()
    page.wait_for_function(f"{HISTOGRAM}.layout.xaxis.range[1] === {wide[1]}")
    page.locator("#histogram").get_by_role("button", name="Table").click()
    counts = page.locator("#histogram tbody td:nth-child(3)").all_inner_texts()
    numel = int(re.search(r"([\d,]+) entries", told.inner_text())[1].replace(",", ""))
    assert sum(int(count.replace(",", "")) for count in counts) <= numel
    page.get_by_label("Module of the histogram").select_option(label="All modules")


def test_a_click_on_a_layer_opens_its_modules(page) -> None:
    page.locator("#map select").select_option(label="Layer 2")
    page.wait_for_function(f"{PLOT}.data[0].z.length === 7")
    page.locator("#map select").select_option(label="All layers")
    page.wait_for_function(f"{PLOT}.data[0].z.length === 4")
    page.locator("#retention .plot").scroll_into_view_if_needed()
    box = page.locator("#retention .plot").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function(f"{PLOT}.data[0].z.length === 7")


def test_nothing_jumps_while_another_family_is_read(open_page) -> None:
    page = open_page()
    ready(page)
    page.evaluate("""() => {
      window.shift = 0; window.waited = 0;
      const plots = document.querySelector('.plots');
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) shift += entry.value;
      }).observe({ type: 'layout-shift' });
      new MutationObserver(() => { waited += plots.classList.contains('is-reading'); })
        .observe(plots, { attributes: true, attributeFilter: ['class'] });
    }""")
    page.get_by_label("sort", exact=True).uncheck(force=True)
    page.wait_for_function(f"amalgam.state.family?.experts === 3 && {SETTLED}")
    page.wait_for_function("waited && !document.querySelector('.plots.is-reading')")
    assert page.evaluate("shift") <= 0.02
    for count, name in enumerate(("spanish", "reverse", "add")):
        page.get_by_label(name, exact=True).first.uncheck(force=True)
        page.wait_for_function(f"(amalgam.state.family?.experts ?? 0) === {2 - count}")
    expect(page.locator("#headline h2")).to_have_text("Nothing to explore yet.")
    expect(page.locator("#headline .arrives")).to_be_empty()  # nothing of the family before
    expect(cut(page)).to_be_hidden()
    page.get_by_label("add", exact=True).first.check(force=True)
    page.locator("#map .main-svg").first.wait_for()  # what was emptied is drawn again


def test_every_plot_has_its_text(page) -> None:
    page.wait_for_function("amalgam.state.arrived")
    for panel in ("map", "histogram", "retention", "clash", "drift", "energy", "cosine"):
        label = page.locator(f"#{panel} .plot").get_attribute("aria-label")
        assert label and (panel in ("clash", "drift") or all(name in label for name in EXPERTS))
        page.locator(f"#{panel}").get_by_role("button", name="Table").click()
        assert page.locator(f"#{panel} tbody tr").count() >= 4
    assert "of the entries" in page.locator("#headline .sr-only").inner_text()
