"""Merging in the browser: to the end, stopped, reloaded, twice at once, and by two people."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.conftest import RunningApp

DEMO = "merge_method: ties\nbase_model: demo:base\nmodels:\n- model: demo:add\n- model: demo:sort\n"
LARGE = (
    DEMO.replace("ties", "pcb").replace("demo:add", "models/one").replace("demo:sort", "models/two")
)
LARGE = LARGE.replace("demo:base", "models/base")
SLOW = LARGE.replace("pcb", "iso_c")  # longer than a hand needs to stop it, tensor by tensor


def open_merge(page, recipe: str, name: str) -> None:
    page.get_by_role("tab", name="Merge").click()
    page.get_by_label("Recipe (YAML)").fill(recipe)
    box = page.get_by_label("Name of the new model").locator("visible=true")
    for _ in range(10):  # a name that was suggested may arrive while this one is typed
        box.fill(name)
        page.wait_for_timeout(100)
        if box.input_value() == name:
            break


def start(page):
    button = page.get_by_role("button", name="Start", exact=True)
    expect(button).to_be_enabled()
    button.click()
    return button


def status(page):
    return page.locator("#merge-status")


def test_the_name_follows_the_recipe_until_one_is_typed_and_none_is_no_start(
    shared_page,
) -> None:
    page = shared_page  # the first to use it: no name was typed yet
    page.get_by_role("tab", name="Merge").click()
    name, recipe = page.get_by_label("Name of the new model"), page.get_by_label("Recipe (YAML)")
    expect(name).to_have_value(re.compile("dppa"))
    recipe.fill(DEMO)
    expect(name).to_have_value(re.compile("^ties"))
    name.fill("")  # an empty box would take what is suggested
    expect(page.locator("#merge-reason")).to_contain_text("give the new model a name")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    name.fill("mine")
    recipe.fill(DEMO.replace("ties", "pcb"))
    expect(page.locator("#recipe-words")).to_contain_text("ompet")
    expect(name).to_have_value("mine")


def test_a_text_edited_by_hand_can_be_brought_back(shared_page) -> None:
    page = shared_page
    edited = "# by hand\n" + DEMO
    open_merge(page, edited, "edited")
    page.get_by_role("tab", name="Explore").click()
    page.locator(".controls").get_by_role("button", name="Merge", exact=True).click()
    recipe = page.get_by_label("Recipe (YAML)")
    expect(recipe).to_have_value(re.compile("dppa"))
    expect(page.locator(".editor-paper")).to_contain_text("dppa")
    page.get_by_role("button", name="Bring back the recipe that was here").click()
    expect(recipe).to_have_value(edited)
    expect(page.get_by_role("button", name="Bring back the recipe that was here")).to_be_hidden()


def test_stop_leaves_nothing(shared_page, app: RunningApp) -> None:
    page = shared_page
    before = {path.name for path in app.models.iterdir()}
    open_merge(page, SLOW, "stopped")
    start(page)
    bar = page.get_by_role("progressbar", name="Merge progress")
    bar.wait_for()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(status(page)).to_contain_text("was stopped", timeout=15_000)
    assert {path.name for path in app.models.iterdir()} == before
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled()


def test_double_click_starts_one_merge(shared_page, app: RunningApp) -> None:
    page = shared_page
    open_merge(page, DEMO, "clicked")
    button = page.get_by_role("button", name="Start", exact=True)
    expect(button).to_be_enabled()
    button.dblclick()
    expect(status(page)).to_contain_text("clicked is ready", timeout=30_000)
    page.wait_for_timeout(500)
    assert sorted(path.name for path in app.models.glob("clicked*")) == ["clicked"]


def test_wrong_names_are_refused_with_a_reason(shared_page, app: RunningApp) -> None:
    page = shared_page
    open_merge(page, DEMO, "fine")
    box = page.get_by_label("Name of the new model")
    reason = page.locator("#merge-reason [role=alert]")
    start = page.get_by_role("button", name="Start", exact=True)
    wrong = [(name, " name") for name in ("../escape", "a/b", ".hidden")]
    for name, text in [*wrong, ("base", "base is taken; base-2 is free")]:
        box.fill("fine")
        expect(start).to_be_enabled()
        expect(reason).to_be_empty()
        box.fill(name)
        expect(reason).to_contain_text(text)
        expect(start).to_be_disabled()
    assert not (app.models.parent / "escape").exists()
    box.fill("x" * 64 + "y")  # the box takes no more than 64
    expect(box).to_have_value("x" * 64)


def test_wrong_recipes_are_refused_in_one_line(shared_page) -> None:
    page = shared_page
    open_merge(page, DEMO, "never")
    start = page.get_by_role("button", name="Start", exact=True)
    for recipe, message in (
        ("", "There is no recipe yet"),
        ("merge_method: tis\n", "did you mean"),
        ("a: [", "not valid YAML"),
        (DEMO.replace("demo:sort", "/etc"), "not one of the models on offer"),
        (DEMO.replace("demo:sort", "demo:srt"), "demo:sort"),
        (DEMO.replace("demo:sort", "models/one"), "not fine-tuned from this base"),
        (DEMO.replace("demo:sort", "<img src=x onerror=alert(1)>"), "<img src=x"),
    ):
        page.get_by_label("Recipe (YAML)").fill(DEMO)
        expect(start).to_be_enabled()
        page.get_by_label("Recipe (YAML)").fill(recipe)
        expect(page.locator("#merge-checks")).to_contain_text(re.compile(re.escape(message), re.I))
        expect(start).to_be_disabled()


GO = "field => field.value.slice(0, field.selectionStart).split('\\n').length"


def test_a_mistake_is_marked_in_the_text_and_a_click_leads_there(shared_page) -> None:
    page = shared_page
    recipe = DEMO + "# the type\ndtpe: float32 # as it is\n"
    open_merge(page, recipe, "never")
    field, gutter = page.get_by_label("Recipe (YAML)"), page.locator(".editor-gutter")
    marked = gutter.locator(".is-error")
    expect(marked).to_have_text("7")
    assert marked.get_attribute("data-sign") == "✕"  # not by colour alone
    expect(page.locator(".editor-paper .is-error")).to_have_text("dtpe: float32 # as it is")
    rows = page.locator(".editor-paper > div > div").all_text_contents()
    assert "\n".join(rows) == recipe, "what is seen is what is there"
    expect(field).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="line 7").click()
    expect(field).to_be_focused()
    assert field.evaluate(GO) == 7
    page.keyboard.press("Control+Home")
    page.keyboard.type("# mine")
    page.keyboard.press("Enter")
    expect(marked).to_have_text("8")  # it went on with its line
    page.keyboard.press("Tab")
    expect(field).not_to_be_focused()
    field.fill(DEMO)
    expect(marked).to_have_count(0)
    expect(field).not_to_have_attribute("aria-invalid", "true")
    assert field.get_attribute("aria-describedby") is None


def test_a_new_line_begins_below_the_last(shared_page) -> None:
    page = shared_page
    open_merge(page, DEMO + "  parameters:", "never")
    field = page.get_by_label("Recipe (YAML)")
    field.press("Control+End")
    field.press("Enter")
    page.keyboard.type("  weight: 0.5")
    expect(field).to_have_value(DEMO + "  parameters:\n    weight: 0.5")
    expect(page.locator("#recipe-words")).to_contain_text("0.5")


def test_recipe_saves_and_opens_again(shared_page, tmp_path: Path) -> None:
    page = shared_page
    open_merge(page, DEMO, "saved")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the recipe").click()
    assert download.value.suggested_filename == "amalgam.yaml"
    file = tmp_path / "amalgam.yaml"
    download.value.save_as(file)
    assert file.read_text() == DEMO
    page.get_by_label("Recipe (YAML)").fill("")
    page.locator("input[type=file]").first.set_input_files(str(file))
    expect(page.get_by_label("Recipe (YAML)")).to_have_value(DEMO)


def test_record_of_a_result_opens_as_a_recipe(shared_page, app: RunningApp) -> None:
    page = shared_page
    open_merge(page, DEMO, "recorded")
    start(page)
    expect(status(page)).to_contain_text("recorded is ready", timeout=60_000)
    page.locator("input[type=file]").first.set_input_files(
        str(app.models / "recorded" / "amalgam.yaml")
    )
    expect(page.get_by_label("Recipe (YAML)")).to_have_value(re.compile("record:"))
    expect(page.locator("#recipe-words")).to_contain_text("changes of")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled()


def test_merge_to_the_end_is_drawn_and_opens_in_chat(shared_page, app: RunningApp) -> None:
    page = shared_page
    open_merge(page, DEMO, "sums-and-sorts")
    expect(page.locator("#recipe-words")).to_contain_text("demo:add and demo:sort")
    start(page)
    expect(status(page)).to_contain_text("sums-and-sorts is ready", timeout=30_000)
    expect(page.locator("#merge-result")).to_contain_text("sha256:")
    expect(page.get_by_text("from_pretrained").first).to_be_visible()
    folder = app.models / "sums-and-sorts"
    assert (folder / "amalgam.yaml").is_file()
    expect(page.get_by_label("Name of the new model")).to_have_value("sums-and-sorts-2")
    assert loads(folder)
    plot = page.locator("#merge-drift .js-plotly-plot")
    plot.wait_for()
    assert len(plot.evaluate("node => node.data[0].y")) >= 4  # layer by layer
    page.get_by_role("button", name="Talk to it").click()
    for name in ("demo:base", "demo:add", "demo:sort", "models/sums-and-sorts"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()


def loads(folder: Path) -> bool:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0


def test_a_page_shows_one_merge_at_a_time(shared_page, app: RunningApp) -> None:
    page = shared_page
    open_merge(page, SLOW, "shown")
    start(page)
    expect(status(page)).to_contain_text("Merging shown", timeout=15_000)
    box = page.get_by_label("Name of the new model")
    box.fill("unseen")
    box.press("Enter")
    expect(page.locator("#merge-reason")).to_contain_text("shown is not over yet")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(status(page)).to_contain_text("shown was stopped", timeout=15_000)
    start(page)  # free again, under the name that was typed
    expect(status(page)).to_contain_text("Merging unseen", timeout=15_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(status(page)).to_contain_text("unseen was stopped", timeout=15_000)
    assert not (app.models / "unseen").exists() and not (app.models / "shown").exists()


def test_second_person_waits_in_line(shared_page, open_beside: Callable) -> None:
    first, second = shared_page, open_beside()
    open_merge(first, SLOW, "first-in-line")
    open_merge(second, SLOW, "second-in-line")
    start(first)
    first.get_by_role("progressbar", name="Merge progress").wait_for()
    start(second)
    expect(status(second)).to_contain_text("second-in-line waits: 1 merge before it")
    second.get_by_role("button", name="Stop", exact=True).click()
    expect(status(second)).to_contain_text("second-in-line was stopped", timeout=15_000)
    expect(status(first)).to_contain_text("Merging first-in-line")
    first.get_by_role("button", name="Stop", exact=True).click()
    expect(status(first)).to_contain_text("first-in-line was stopped", timeout=15_000)


def test_an_edited_recipe_survives_a_reload(shared_page) -> None:
    page = shared_page
    page.get_by_role("tab", name="Merge").click()
    box = page.get_by_label("Recipe (YAML)")
    box.fill(DEMO)
    expect(page.locator("#recipe-words")).to_contain_text("demo:add and demo:sort")
    page.wait_for_function("localStorage.getItem('amalgam-recipe')?.length > 50")
    page.wait_for_timeout(300)
    page.reload()
    page.get_by_role("tab", name="Merge").click()
    expect(box).to_have_value(DEMO)


def test_progress_survives_a_reload_and_the_merge_the_end_of_its_page(
    page, app: RunningApp
) -> None:
    open_merge(page, LARGE, "reloaded")
    start(page)
    page.get_by_role("progressbar", name="Merge progress").wait_for()
    page.reload()
    page.get_by_role("tab", name="Merge").click()
    expect(status(page)).to_contain_text("reloaded", timeout=10_000)
    expect(status(page)).to_contain_text("reloaded is ready", timeout=60_000)
    expect(page.locator("#merge-result")).to_contain_text("sha256:")
    assert (app.models / "reloaded" / "amalgam.yaml").is_file()
    open_merge(page, LARGE, "closed")
    start(page)
    page.get_by_role("progressbar", name="Merge progress").wait_for()
    page.close()
    deadline = time.monotonic() + 60
    while not (app.models / "closed").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (app.models / "closed" / "amalgam.yaml").is_file()
