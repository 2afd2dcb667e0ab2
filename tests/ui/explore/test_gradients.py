"""Values over depth: what the editor shows of a recipe, and what a drawing makes of it."""

from __future__ import annotations

import json

import pytest

from merging.errors import RecipeError
from merging.recipe import Recipe, dump, parse
from ui.explore import gradients

RECIPE = """
merge_method: ties
base_model: base
models:
- {model: one, parameters: {weight: [0.5, 1.0], density: 0.3}}
- {model: two, parameters: {weight: 1.0, density: 0.3}}
parameters: {lambda: 0.8}
"""


def facts(recipe: Recipe) -> dict[str, dict]:
    shown = json.loads(gradients.facts(recipe, 12, {"one": "One"}))
    assert shown["layers"] == 12
    return {fact["label"]: fact for fact in shown["knobs"]}


def drawing(knob: str, model: str, *knots: object) -> str:
    return json.dumps({"id": [knob, model], "knots": knots})


def test_every_number_that_may_vary_is_shown_with_its_knots() -> None:
    shown = facts(parse(RECIPE))
    assert shown["Weight of One"]["knots"] == [0.5, 1.0]
    assert shown["Weight of two"]["knots"] == [1.0]
    assert shown["Density of all"] == {
        "id": ["density", "*"],
        "label": "Density of all",
        **{"low": 0.0, "high": 1.0, "step": 0.01, "knots": [0.3], "mixed": False},
    }
    assert (shown["Weight of all"]["knots"], shown["Weight of all"]["mixed"]) == (
        [pytest.approx(2.5 / 3, abs=1e-6)],
        True,
    )


def test_a_value_that_varies_by_module_is_said_to() -> None:
    by_module = "weight: [{filter: mlp, value: 0.2}, {value: 0.6}]"
    shown = facts(parse(RECIPE.replace("weight: [0.5, 1.0]", by_module)))
    assert shown["Weight of One"]["mixed"]
    assert shown["Weight of One"]["knots"] == [pytest.approx(0.4)]


def test_a_knob_beyond_its_slider_is_drawn_in_a_higher_frame() -> None:
    shown = facts(parse(RECIPE.replace("weight: [0.5, 1.0]", "weight: 7.5")))
    assert shown["Weight of One"]["high"] == 7.5


def test_a_drawing_is_mergekits_gradient_in_the_recipe() -> None:
    recipe = gradients.drawn(parse(RECIPE), drawing("density", "*", 0.1, 0.5, 0.9))
    assert all(source.values["density"].to_yaml() == [0.1, 0.5, 0.9] for source in recipe.sources)
    assert parse(dump(recipe)) == recipe
    one = gradients.drawn(recipe, drawing("density", "two", 0.2))
    assert [s.values["density"].to_yaml() for s in one.sources] == [[0.1, 0.5, 0.9], 0.2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "no drawing"),
        ("[]", "no drawing"),
        (drawing("density", "*", "high"), "no drawing"),
        (drawing("density", "*"), "1 to 16 points"),
        (drawing("density", "*", *[0.5] * 17), "1 to 16 points"),
        (drawing("normalize", "*", 1.0), "1 to 16 points"),
        (drawing("density", "*", 0.5, 1.5), "between 0 and 1"),
        (drawing("density", "*", float("nan")), "between 0 and 1"),
    ],
)
def test_what_no_editor_draws_is_refused(text: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        gradients.drawn(parse(RECIPE), text)
