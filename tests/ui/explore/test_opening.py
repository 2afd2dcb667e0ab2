"""Recipes that are opened in the controls: which there are, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from merging import recipe as recipes
from merging.errors import MergeError, RecipeError
from merging.system import shipped
from ui import controls, spelling
from ui.explore import answers, opening, view
from ui.explore.going import Going
from ui.explore.trail import Bench, Page, Trail
from ui.library import Library

TIES = """
merge_method: ties
base_model: demo:base
models: [{model: demo:add, parameters: {density: 0.4}}, {model: demo:sort}]
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library([tmp_path_factory.mktemp("models")])


@pytest.fixture(scope="module")
def named(library: Library) -> dict[str, Any]:
    base, experts = library.default_selection()
    with gr.Blocks():
        return controls.layout(view.choices(library), base, experts).named()


@pytest.fixture
def usual(named: dict[str, Any]) -> dict[str, Any]:
    return {name: component.value for name, component in named.items()}


def test_every_recipe_on_the_list_can_be_opened(library, usual) -> None:
    listed = [name for _, name in opening.choices(library)]
    assert set(listed) == set(shipped.recipes())
    for name in listed:
        text = opening.text_of(library, name)
        settings = opening.settings_of(library, text, usual)
        assert spelling.to_recipe(settings) == recipes.parse(text)


def test_the_recipe_of_a_saved_model_is_on_the_list(library, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    for name, content in {"config.json": "{}", "x.safetensors": "", "amalgam.yaml": TIES}.items():
        (folder / name).write_text(content)
    own = Library([folder.parent])
    assert opening.choices(own)[-1] == ("What made mine", "of:models/mine")
    assert opening.text_of(own, "of:models/mine") == TIES
    (folder / "amalgam.yaml").unlink()
    with pytest.raises(RecipeError, match="is not there any more"):
        opening.text_of(own, "of:models/mine")
    with pytest.raises(MergeError):
        opening.text_of(own, "of:../mine")


def test_nothing_is_held_of_a_recipe_that_the_controls_spell(library, usual) -> None:
    plain = TIES.replace("{model: demo:sort}", "{model: demo:sort, parameters: {density: 0.4}}")
    assert opening.settings_of(library, plain, usual)[spelling.OPENED] == ""
    assert "density: 0.4" in opening.settings_of(library, TIES, usual)[spelling.OPENED]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("merge_method: tie\n", "did you mean ties"),
        (TIES.replace("demo:sort", "demo:other"), "'demo:other' is not one of the models"),
        ("x" * (spelling.MOST_CHARACTERS + 1), "longer than 100,000 characters"),
    ],
)
def test_what_cannot_be_opened_leaves_the_controls_and_says_why(
    text: str, reason: str, library, named, usual
) -> None:
    weighed = usual["experts"]
    past = Page(Bench(Trail({**usual, "weighed": weighed})))
    led = Going(library, named).opened(text, past, weighed, *usual.values())
    assert led[list(named).index("rate")] == usual["rate"]
    assert reason in led[len(named) + 6].replace("&#x27;", "'")


def test_a_link_goes_before_what_the_browser_remembers(library, named, usual) -> None:
    going, past = Going(library, named), Page(Bench(Trail(usual)))
    stored = {**usual, "rate": 0.33, "weighed": usual["experts"]}
    led = going.loaded("", past, stored, *usual.values())
    assert led[list(named).index("rate")] == 0.33
    led = going.loaded(TIES, past, stored, *usual.values())
    assert dict(zip(named, led, strict=False))["consensus"] == "ties"
    assert led[len(named) + 1] is True  # other experts: a family to read
    led = going.loaded("merge_method: tie", past, stored, *usual.values())
    assert led[list(named).index("rate")] == 0.33
    assert "The recipe of this address cannot be opened" in led[len(named) + 6]


REORDERED = """
merge_method: ties
base_model: demo:base
models:
- {model: demo:sort, parameters: {density: 0.4}}
- {model: demo:add, parameters: {density: 0.2}}
"""


def test_numbers_of_a_recipe_in_another_order_are_those_of_their_experts(library, usual) -> None:
    settings = opening.settings_of(library, REORDERED, usual)
    finding = answers.settled(library, dict(settings), settings["weighed"])[0]
    add, sort = finding["densities"]
    assert settings["experts"] == ["demo:add", "demo:sort"]
    assert (set(add), set(sort)) == ({0.2}, {0.4})
    entries = finding["exact"]["entries"]
    assert [round(row[0], 2) for row in entries] == [0.2, 0.4]


def test_a_blend_in_another_order_is_not_foreseen(library, usual) -> None:
    models = "[{model: demo:sort}, {model: demo:add}]"
    text = f"merge_method: slerp\nbase_model: demo:sort\nmodels: {models}\n"
    other = text.replace("base_model: demo:sort", "base_model: demo:base")
    settings = opening.settings_of(library, other, usual)
    assert settings.get(spelling.OPENED)
    panel = answers.foreseen(library, dict(settings), settings["weighed"])
    assert "another order" in panel["note"]


def test_a_recipe_is_opened_while_one_control_is_about_to_follow_another(
    library, named, usual
) -> None:
    page = Page(Bench(Trail({**usual, "weighed": usual["experts"]})))
    moving = {**usual, "consensus": "karcher"}  # dynamic pruning is about to be set aside
    led = Going(library, named).opened(TIES, page, usual["experts"], *moving.values())
    assert dict(zip(named, led, strict=False))["consensus"] == "ties"
    Going(library, named).opened("merge_method: tie", page, usual["experts"], *moving.values())
    assert "cannot be shown" in page.bench.problem
