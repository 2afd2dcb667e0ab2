"""Recipes as values of the controls, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from merging import recipe as recipes
from merging.errors import RecipeError
from merging.methods import PRESETS
from merging.system import shipped
from ui import controls, spelling
from ui.explore import shape
from ui.spelling import OPENED

ORDER = ["demo:base", "demo:add", "demo:reverse", "demo:spanish", "demo:sort"]
HERE = [(model, model) for model in ORDER]


@pytest.fixture(scope="module")
def usual() -> dict[str, Any]:
    with gr.Blocks():
        named = controls.layout(HERE, "demo:base", ORDER[1:]).named()
    return {name: component.value for name, component in named.items()}


def opened(text: str, usual: dict[str, Any]) -> dict[str, Any]:
    recipe = recipes.parse(text)
    return {**spelling.values_of(recipe, usual, ORDER), OPENED: recipes.dump(recipe)}


@pytest.mark.parametrize("name", shipped.recipes())
def test_every_recipe_that_ships_comes_back_as_it_was(name: str, usual) -> None:
    text = Path(shipped.recipes()[name]).read_text()
    assert spelling.to_recipe(opened(text, usual)) == recipes.parse(text)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_values_of_the_controls_alone(name: str, usual) -> None:
    preset = PRESETS[name]
    parts = ["rate", "partitions", *(f"amplification.{k}" for k in range(8)), "lambda"]
    names = [
        n for n in usual if "." in n and n.partition(".")[0] not in ("amplification", "weight")
    ]
    values = dict(zip([*parts, *names], shape.preset(name), strict=True))
    values |= {"prune": preset.prune, "consensus": preset.consensus, "experts": ORDER[1:3]}
    try:
        recipe = spelling.to_recipe({**usual, **values})
    except RecipeError:  # takes one expert
        recipe = spelling.to_recipe({**usual, **values, "experts": ORDER[1:2]})
    again = spelling.values_of(recipe, usual, ORDER)
    assert spelling.to_recipe(again) == recipe


VARIED = """
merge_method: ties
base_model: demo:base
models:
- {model: demo:sort, parameters: {weight: [0.5, 1.0], density: 0.4}}
- {model: demo:add, parameters: {weight: 1.0, density: 0.2}}
dtype: bfloat16
"""


def test_what_varies_shows_its_middle_and_is_kept_until_its_control_moves(usual) -> None:
    values = opened(VARIED, usual)
    assert values["experts"] == ["demo:add", "demo:sort"]
    assert values["rate"] == pytest.approx(0.7)
    assert (values["weight.0"], values["weight.1"]) == (1.0, 0.75)
    moved = spelling.to_recipe({**values, "weight.1": 0.9})
    assert [source.model for source in moved.sources] == ["demo:sort", "demo:add"]
    assert [source.weight.constant for source in moved.sources] == [0.9, 1.0]
    assert [source.density.constant for source in moved.sources] == [0.4, 0.2]
    assert moved.dtype == "bfloat16"
    pruned = spelling.to_recipe({**values, "rate": 0.5})
    assert [source.density.constant for source in pruned.sources] == [0.5, 0.5]
    assert pruned.sources[0].weight.constant is None


def test_what_the_controls_do_not_show_is_said(usual) -> None:
    said = spelling.unshown(opened(VARIED, usual), {"demo:sort": "sort", "demo:add": "add"})
    assert "type bfloat16 instead of the base's" in said
    assert "weight of sort varied along the model instead of 0.75" in said
    assert "density of add 0.2 instead of 0.3" in said
    assert spelling.unshown(usual) == []


def test_another_method_leaves_what_belonged_to_the_opened_one(usual) -> None:
    values = {**opened(VARIED, usual), "prune": "none", "consensus": "sum"}
    recipe = spelling.to_recipe(values)
    assert recipe.dtype == "bfloat16"
    assert recipe.sources[0].weight.constant is None  # weights belong to the experts


def test_an_expert_that_comes_or_goes_leaves_the_others_as_they_were(usual) -> None:
    values = opened(VARIED, usual)
    more = {**values, "experts": ["demo:add", "demo:spanish", "demo:sort"]}
    more |= {"weight.1": 1.0, "weight.2": 0.75}
    recipe = spelling.to_recipe(more)
    assert [s.model for s in recipe.sources] == ["demo:sort", "demo:add", "demo:spanish"]
    assert recipe.sources[0].weight.constant is None
    assert recipe.sources[2].density.constant == pytest.approx(0.3)


TASK = "merge_method: emr\nbase_model: demo:base\nmodels: [{model: demo:sort}, {model: demo:add}]\n"


def test_a_place_is_that_of_the_model_in_the_experts_order(usual) -> None:
    text = f"{TASK}parameters: {{task: 1}}\n"
    values = opened(text, usual)
    assert values["emr.task"] == 2  # sort, behind add
    assert spelling.to_recipe(values) == recipes.parse(text)
    assert spelling.to_recipe({**values, "emr.task": 1}).parameters["task"] == 2


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        (str([{"model": f"m{i}"} for i in range(9)]), "it merges 9 models"),
        ("[{model: demo:base}]", "it merges its base alone"),
    ],
)
def test_what_no_setting_shows_is_refused(models: str, reason: str, usual) -> None:
    text = f"merge_method: linear\nbase_model: demo:base\nmodels: {models}\n"
    with pytest.raises(RecipeError, match=reason):
        spelling.values_of(recipes.parse(text), usual, ORDER)


def test_a_blend_that_counts_its_base_still_does(usual) -> None:
    models = "[{model: demo:base, parameters: {weight: 0.2}}, {model: demo:add}]"
    text = f"merge_method: linear\nbase_model: demo:base\nmodels: {models}\n"
    values = opened(text, usual)
    assert values["experts"] == ["demo:add"]
    assert spelling.to_recipe(values) == recipes.parse(text)
    assert any(phrase == "with demo:base" for phrase in spelling.unshown(values))
