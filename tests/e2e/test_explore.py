"""Explore in a real browser: plots that follow the slider, numbers that agree with the engine."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from merging.declarations.methods import GROUPS
from tests.e2e.conftest import DESKTOP, PHONE, sideways

OPENED = """
merge_method: ties
base_model: demo:base
models:
- {model: demo:add, parameters: {density: 0.4}}
- {model: demo:sort, parameters: {density: 0.4, weight: [0.5, 1.0]}}
dtype: bfloat16
"""
EXPERTS = ("add", "reverse", "spanish", "sort")
SETTLED = "amalgam.state.exact !== null && !!amalgam.state.plan"
FIRST = """(({ prune, consensus, partitions, ...rest }) => prune === "dynamic" && partitions === 4
  && consensus === "sum" && rest["amplification.0"] === 1.7)(amalgam.state.values)"""
PLOT = "document.querySelector('#map .plot')"


@pytest.fixture
def page(shared_page):
    """Explore as the first screen shows it, on the page that these tests share."""
    shared_page.get_by_role("tab", name="Explore").click()
    ready(shared_page)
    restore(shared_page)
    return shared_page


def restore(page) -> None:
    """Every control as at first: all experts, the first preset, nothing opened in the panels."""
    for box in page.get_by_role("group", name="Experts").get_by_role("checkbox").all():
        if box.locator("xpath=following-sibling::span").inner_text() in EXPERTS:
            box.set_checked(True, force=True)
    page.wait_for_function(f"{SETTLED} && amalgam.state.arrived", timeout=60_000)  # all is there
    with page.expect_response("**/run/predict*"):  # else it may come after the test's first move
        page.locator(".presets input[value='dppa']").dispatch_event("change")
    expect(chosen(page, "Combine by", "sum")).to_be_checked()
    page.get_by_role("button", name="Reset to preset").dispatch_event("click")
    page.wait_for_function(f"amalgam.state.family?.experts === {len(EXPERTS)}")
    page.wait_for_function(f"amalgam.state.values.rate === 0.7 && {FIRST} && {SETTLED}")
    for box in page.locator(".tools select").all():
        box.select_option(index=0)
    page.evaluate("amalgam.state.zoom = null")
    page.locator(".tools button[aria-pressed=true]").evaluate_all("all => all.map(b => b.click())")


def ready(page) -> None:
    """Waits for the first drawing of the map."""
    page.locator("#map .main-svg").first.wait_for()
    page.wait_for_function(SETTLED)


def rate(page):
    return page.get_by_label("range slider for Pruning rate")


def move(page, press: Callable[[], None]) -> None:
    """Moves a control and waits for the server's answer to it."""
    moves = page.evaluate("amalgam.state.moves")
    press()
    page.wait_for_function(f"amalgam.state.moves > {moves} && {SETTLED}")


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


def test_numbers_of_the_finding_stand_in_its_sentence(page) -> None:
    assert page.locator("#headline em").evaluate_all(
        "all => all.every((em) => getComputedStyle(em).display === 'inline')"
    )


def test_the_page_is_light(page) -> None:
    ready(page)
    assert page.evaluate("JSON.stringify(window.gradio_config).length") < 1_000_000


def test_the_map_follows_the_slider_on_one_node(page) -> None:
    ready(page)
    page.evaluate(f"{PLOT}.mark = 1")
    before = page.evaluate(f"{PLOT}.data[2].x[0]")
    rate(page).focus()
    move(page, lambda: rate(page).press("ArrowRight"))
    page.wait_for_function(f"{PLOT}.data[2].x[0] > {before}")
    assert page.evaluate(f"{PLOT}.mark") == 1
    assert finding(page).startswith("Keeps 29 % of the entries")


def test_a_drag_is_drawn_in_the_browser_and_settled_once(page) -> None:
    ready(page)
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
        for step in range(30):
            page.mouse.move(box["x"] + (0.8 - 0.02 * step) * box["width"], y)
        page.mouse.up()

    move(page, drag)
    assert page.evaluate("shown") >= 10
    assert page.evaluate("asked < shown")  # it asks when the hand rests, not at every move


def test_the_map_is_painted_while_a_slider_moves_and_drawn_when_it_rests(page) -> None:
    ready(page)
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
      while (drawn === moving) await new Promise(requestAnimationFrame);
      Plotly.react = react;
      return { blue, moving, left: coloured() };
    }""")
    painted = [count for count in seen["blue"] if count is not None]
    assert len(painted) >= 9  # a busy machine takes a pause for a rest
    assert painted == sorted(painted, reverse=True)  # the more is pruned, the less is coloured
    assert painted[-1] < painted[0] / 2
    assert seen["moving"] <= len(seen["blue"]) - len(painted)
    assert seen["left"] is None  # what was painted is gone once the plot is drawn


def test_pruners_are_drawn_as_what_they_are(page) -> None:
    ready(page)
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
    ready(page)
    slider = page.get_by_label("range slider for Partitions")
    slider.focus()
    move(page, lambda: slider.press("ArrowRight"))
    page.get_by_label("range slider for top 6 %").wait_for()
    page.get_by_label("range slider for 24\N{EN DASH}30 %").wait_for()
    lines = page.evaluate(f"{PLOT}.data[1].x.filter(v => v !== null).length")
    assert 24 < lines <= 4 * 4 * 2  # up to 4 bounds in 4 layers, two points each


def test_amplification_is_told_and_drawn(page) -> None:
    ready(page)
    note = "document.querySelector('#energy .plot').layout.annotations[0].text"
    first, colour = page.evaluate(note), page.evaluate(f"JSON.stringify({PLOT}.data[0].z)")
    slider = page.get_by_label("range slider for top 7.5 %")
    slider.focus()
    move(page, lambda: [slider.press("PageUp") for _ in range(2)])
    page.wait_for_function(f"{note} !== {first!r}")
    assert "after amplification" in page.evaluate(note)
    assert page.evaluate(f"JSON.stringify({PLOT}.data[0].z)") != colour


def test_a_preset_sets_both_axes_and_a_free_choice_leaves_it(page) -> None:
    ready(page)
    choose_preset(page, "dare_ties")
    expect(chosen(page, "Prune by", "random")).to_be_checked()
    expect(chosen(page, "Combine by", "ties")).to_be_checked()
    choose(page, "Combine by", "pcb")
    page.wait_for_function("!document.querySelector('.presets input:checked')")
    page.locator("#words", has_text="Let them compete").wait_for()


def test_choices_stand_in_groups_that_fold(page) -> None:
    ready(page)
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
    ready(page)
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
    ready(page)
    choose_preset(page, "emr")
    page.get_by_role("button", name="More: EMR-Merging").click()
    task = page.get_by_role("group", name="Task", exact=True)
    move(page, lambda: task.get_by_label("spanish", exact=True).check(force=True))
    page.get_by_label("add", exact=True).first.uncheck(force=True)
    page.wait_for_function("amalgam.state.family?.experts === 3")
    expect(task.get_by_label("spanish", exact=True)).to_be_checked()
    expect(task.get_by_label("add", exact=True)).to_have_count(0)


def test_a_number_out_of_range_is_clamped_without_a_complaint(page) -> None:
    ready(page)
    move(page, lambda: page.get_by_label("number input for Pruning rate").fill("7"))
    page.wait_for_timeout(300)
    assert rate(page).input_value() == "0.99"
    assert page.get_by_test_id("toast-body").count() == 0


def test_an_emptied_number_keeps_what_it_had(page) -> None:
    ready(page)
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


def test_arrow_keys_move_inside_a_group_of_choices(page) -> None:
    ready(page)
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
    ready(page)
    sentence = finding(page)
    choose_preset(page, "ties")
    assert finding(page) != sentence
    choose_preset(page, "dppa")
    page.wait_for_timeout(500)
    assert finding(page) == sentence


def test_an_expert_left_out_leaves_the_plots(page) -> None:
    ready(page)
    page.get_by_label("sort", exact=True).uncheck(force=True)
    page.wait_for_function(f"amalgam.state.family.experts === 3 && {PLOT}.data.length === 10")
    page.get_by_label("add", exact=True).uncheck(force=True)
    page.wait_for_function(f"amalgam.state.family.experts === 2 && {PLOT}.data.length === 7")
    assert page.evaluate("amalgam.state.family.looks.map(l => l.name)") == ["reverse", "spanish"]


def test_a_click_on_a_layer_opens_its_modules(page) -> None:
    ready(page)
    page.locator("#map select").select_option(label="Layer 2")
    page.wait_for_function(f"{PLOT}.data[0].z.length === 7")
    page.locator("#map select").select_option(label="All layers")
    page.wait_for_function(f"{PLOT}.data[0].z.length === 4")
    page.locator("#retention .plot").scroll_into_view_if_needed()
    box = page.locator("#retention .plot").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function(f"{PLOT}.data[0].z.length === 7")


HISTOGRAM = "document.querySelector('#histogram .plot')"


def cut(page):
    return page.get_by_role("slider", name="Pruning rate, as the cut of")


def test_the_cut_in_the_histogram_moves_the_rate(page) -> None:
    ready(page)
    cut(page).scroll_into_view_if_needed()
    box = cut(page).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag() -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        for step in range(1, 11):
            page.mouse.move(x - 8 * step, y)
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
    ready(page)
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


def test_strength_and_rule_change_what_arrives(page) -> None:
    ready(page)
    drift = "amalgam.state.arrived && amalgam.state.arrival?.drift[0]"
    page.wait_for_function(drift)
    before = page.evaluate(drift)
    strength = page.get_by_label("range slider for Strength")
    move(page, lambda: strength.press("ArrowRight"))
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


def test_what_is_looked_at_stays_when_experts_come_and_go(page) -> None:
    ready(page)
    page.locator("#map select").select_option(label="Layer 2")
    page.get_by_label("Expert", exact=True).select_option(label="spanish")
    page.get_by_label("add", exact=True).uncheck(force=True)
    page.wait_for_function("amalgam.state.family.experts === 3")
    page.wait_for_function(f"{PLOT}.data.length === 10 && {PLOT}.data[0].z.length === 7")
    chosen = "[...document.querySelectorAll('.tools select')].map(s => s.selectedOptions[0].text)"
    assert {"Layer 2", "spanish"} <= set(page.evaluate(chosen))


def test_every_plot_has_its_text(page) -> None:
    ready(page)
    page.wait_for_function("amalgam.state.arrived")
    for panel in ("map", "histogram", "retention", "clash", "drift", "energy", "cosine"):
        label = page.locator(f"#{panel} .plot").get_attribute("aria-label")
        assert label and (panel in ("clash", "drift") or all(name in label for name in EXPERTS))
        page.locator(f"#{panel}").get_by_role("button", name="Table").click()
        assert page.locator(f"#{panel} tbody tr").count() >= 4
    assert "of the entries" in page.locator("#headline [role=status]").inner_text()


def test_a_reload_loses_nothing(page) -> None:
    ready(page)
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
    ready(page)
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
    ready(page)
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
    ready(page)
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
    ready(page)
    slider = rate(page)
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    page.get_by_role("button", name="Merge", exact=True).click()  # before anything has settled
    expect(page.get_by_label("Recipe (YAML)")).to_have_value(re.compile(r"density: 0\.28"))


def test_the_first_screen_shows_four_real_histograms(open_page) -> None:
    open_page().context.pages[0].wait_for_timeout(0)  # the files are in the server's cache now
    page = open_page()
    held = []  # no callback is answered before the first drawing: it must not wait for one
    page.route("**/run/predict*", lambda route: held.append(route))
    ready(page)
    for route in held:
        route.continue_()
    page.unroute("**/run/predict*")
    heats = page.evaluate(f"{PLOT}.data.filter(t => t.meta.role === 'heat').map(t => t.z.length)")
    assert heats == [4] * 4
    titles = page.evaluate(f"{PLOT}.layout.annotations.map(a => a.text).join()")
    assert all(name in titles for name in EXPERTS)
    assert finding(page).startswith("Keeps 30 % of the entries")


def step(page, name: str) -> None:
    """Goes to a step of the bar that phones have."""
    bar = page.get_by_role("navigation", name="Parts of the workbench")
    bar.get_by_role("button", name=name, exact=True).click()


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


def test_three_columns_scroll_by_themselves_and_a_narrower_page_has_a_drawer(page) -> None:
    ready(page)
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


def test_what_was_set_can_be_undone_and_held_beside_another(page) -> None:
    ready(page)
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
    expect(words).to_have_text("A has density 0.29 instead of 0.28.")
    page.locator("#headline h2").click()
    move(page, lambda: page.keyboard.press("x"))
    expect(rate(page)).to_have_value("0.71")
    expect(page.locator("#side").get_by_label("A", exact=True)).to_be_checked()
    expect(words).to_have_text("B has density 0.28 instead of 0.29.")


def luminance(colour: str) -> float:
    red, green, blue = (int(part) for part in colour.strip("rgb()").split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


def test_the_dark_page_draws_in_dark_colours(open_page) -> None:
    page = open_page(query="?__theme=dark")
    ready(page)
    light = page.evaluate(
        "amalgamFigures.palette().ink[0] > 150 && amalgamFigures.palette().card[0] < 60"
    )
    assert light
    assert page.evaluate(f"{PLOT}.layout.paper_bgcolor") == "rgba(0,0,0,0)"
    page.get_by_role("tab", name="Guide").click()
    card = page.locator("#guide .card").first
    card.wait_for()
    colours = card.evaluate("n => [getComputedStyle(n).color, getComputedStyle(n).backgroundColor]")
    assert luminance(colours[0]) > 0.8
    assert luminance(colours[1]) < 0.2
