"""Values for a part of the model: what is written into the recipe, and taken away again."""

from __future__ import annotations

import json

import pytest

from merging.errors import RecipeError
from merging.recipe import dump, parse
from ui.explore import overrides

RECIPE = """
merge_method: ties
base_model: base
models:
- {model: one, parameters: {weight: 1.0, density: 0.3}}
- {model: two, parameters: {weight: 1.0, density: [0.3, 0.5]}}
parameters: {lambda: 0.8}
"""
LAYER, TENSOR = "model.layers.3.", "model.layers.3.mlp.up_proj.weight"


def edit(knob: str, model: str, part: str, value: object) -> str:
    return json.dumps({"knob": knob, "model": model, "filter": part, "value": value})


def test_a_value_holds_for_its_part_and_the_rest_stays() -> None:
    recipe = overrides.written(parse(RECIPE), edit("density", "*", LAYER, 0.9))
    for source, elsewhere in zip(recipe.sources, (0.3, 0.3), strict=True):
        assert source.density.at(TENSOR, 3, 12) == 0.9
        assert source.density.at("model.layers.13.mlp.up_proj.weight", 0, 12) == elsewhere
    assert parse(dump(recipe)) == recipe
    assert "filter: model.layers.3." in dump(recipe)


def test_the_newest_wins_the_same_part_is_said_once_and_taking_away_restores() -> None:
    first = overrides.written(parse(RECIPE), edit("density", "one", LAYER, 0.9))
    again = overrides.written(first, edit("density", "one", LAYER, 0.8))
    both = overrides.written(again, edit("density", "one", "mlp.up_proj", 0.1))
    assert both.sources[0].density.at(TENSOR, 3, 12) == 0.1
    said = [(r["model"], r["filter"], r["value"]) for r in overrides.rules_of(both, TENSOR)]
    assert said == [("one", "mlp.up_proj", 0.1), ("one", LAYER, 0.8)]
    assert overrides.rules_of(both, "model.layers.2.self_attn.q_proj.weight") == []
    none = overrides.written(both, edit("density", "one", "mlp.up_proj", None))
    assert overrides.written(none, edit("density", "*", LAYER, None)) == parse(RECIPE)


def test_a_knob_of_the_whole_is_set_as_well() -> None:
    recipe = overrides.written(parse(RECIPE), edit("lambda", "*", LAYER, 0.5))
    assert recipe.strength.at(TENSOR, 3, 12) == 0.5
    assert recipe.strength.at("model.layers.4.mlp.up_proj.weight", 4, 12) == 0.8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        edit("density", "*", LAYER, 1.5),
        edit("density", "*", LAYER, float("nan")),
        edit("density", "*", "*", 0.5),
        edit("density", "*", "", 0.5),
        edit("seed", "*", LAYER, 1),
    ],
)
def test_what_is_no_such_value_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        overrides.written(parse(RECIPE), text)
