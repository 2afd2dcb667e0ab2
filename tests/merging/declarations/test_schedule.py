"""Values that change along the model: numbers, gradients, filters."""

from __future__ import annotations

import pytest

from merging.declarations.schedules import before, chain, constant
from merging.errors import RecipeError

Q, NORM = "model.layers.1.self_attn.q_proj.weight", "model.norm.weight"


def at(value, tensor: str = Q, layer: int | None = 1, layers: int = 3) -> float:
    return chain([value], 7.0, "weight").at(tensor, layer, layers)


def test_a_number_holds_everywhere() -> None:
    assert at(0.5) == at(0.5, NORM, None) == 0.5
    assert constant(0.5).at(Q, 0, 1) == 0.5


def test_a_silent_recipe_takes_the_default() -> None:
    assert at(None) == 7.0


def test_a_list_without_values_is_silent() -> None:
    # mergekit 0.1.5 goes on to the next level, and in the end to the default
    assert at([]) == 7.0
    assert chain([[], 0.5], 7.0, "weight").constant == 0.5
    with pytest.raises(RecipeError):
        at([{"value": []}])


@pytest.mark.parametrize("silent", [None, []])
def test_rules_before_a_silent_level_stay_as_they_are(silent) -> None:
    rules = [{"filter": "mlp", "value": 1}]
    assert before(rules, silent) == rules
    assert before(silent, rules) == rules


@pytest.mark.parametrize(("layer", "value"), [(0, 0.0), (1, 1.0), (2, 2.0), (None, 0.0)])
def test_knots_spread_over_the_layers_and_the_rest_takes_the_first(layer, value) -> None:
    # mergekit, three layers, knots 0 1 2: embeddings 0, layers 0 1 2, norm and head 0
    assert at([0, 1, 2], Q, layer) == value


@pytest.mark.parametrize(("layer", "value"), [(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25), (4, 0.0)])
def test_between_knots_the_value_is_linear(layer: int, value: float) -> None:
    assert at([1.0, 0.0], Q, layer, 5) == pytest.approx(value)
    assert at([1.0, 0.5, 0.0], Q, layer, 5) == pytest.approx(value)


def test_a_model_of_one_layer_takes_the_last_knot() -> None:
    assert at([0.2, 0.9], Q, 0, 1) == 0.9
    assert at([0.2, 0.9], NORM, None, 1) == 0.2


def test_more_knots_than_layers_are_sampled() -> None:
    knots = [0, 10, 20, 30, 40]
    assert [at(knots, Q, layer, 3) for layer in range(3)] == [0, 20, 40]


def test_the_first_filter_that_matches_wins() -> None:
    rules = [{"filter": "q_proj", "value": 1}, {"filter": "self_attn", "value": 2}, {"value": 3}]
    assert at(rules) == 1
    assert at(rules, "model.layers.0.self_attn.v_proj.weight") == 2
    assert at(rules, NORM, None) == 3


@pytest.mark.parametrize(("layer", "value"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_switch_stays_until_the_next_knot(layer: int, value: bool) -> None:
    # mergekit 0.1.5: knots[int(t * (n - 1))]; four layers, t = 0, 1/3, 2/3, 1
    schedule = chain([[True, False, False]], True, "normalize", lambda one: one)
    assert schedule.at(Q, layer, 4) is value
    last = chain([["line", "arc"]], "line", "path", lambda one: one)
    assert last.at(Q, layer, 4) == ("arc" if layer == 3 else "line")


def test_a_count_between_two_knots_is_rounded() -> None:
    schedule = chain([[0, 5]], 1, "steps", lambda one: one)
    counts = [schedule.at(Q, layer, 4) for layer in range(4)]
    assert counts == [0, 2, 3, 5]  # 1.67 and 3.33 between
    assert set(map(type, counts)) == {int}


def test_a_switch_by_filter_takes_the_default_elsewhere() -> None:
    schedule = chain([{"filter": "mlp", "value": True}], False, "normalize", lambda one: one)
    assert schedule.at("model.layers.0.mlp.up_proj.weight", 0, 3) is True
    assert schedule.at(Q, 1, 3) is False
    assert schedule.values == (True, False)
    assert schedule.to_yaml() == [{"filter": "mlp", "value": True}, {"value": False}]


def test_a_filter_may_hold_a_gradient() -> None:
    rules = [{"filter": "self_attn", "value": [0, 1]}, {"filter": "*", "value": 0.25}]
    assert [at(rules, Q, layer) for layer in range(3)] == [0, 0.5, 1]
    assert at(rules, NORM, None) == 0.25


def test_without_a_match_the_next_level_decides() -> None:
    schedule = chain([[{"filter": "mlp", "value": 5}], 0.5], 1.0, "weight")
    assert schedule.at("model.layers.0.mlp.up_proj.weight", 0, 2) == 5
    assert schedule.at(Q, 0, 2) == 0.5
    assert chain([[{"filter": "mlp", "value": 5}]], 1.0, "weight").at(Q, 0, 2) == 1.0


def test_a_lone_rule_needs_no_list() -> None:
    assert at({"filter": "q_proj", "value": 2}) == 2


def test_a_filter_may_be_a_number() -> None:
    assert at([{"filter": 1, "value": 2}, {"value": 3}]) == 2
    assert at([{"filter": 0, "value": 2}, {"value": 3}]) == 3


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        True,
        [1, "b"],
        [True],
        [None],
        {},
        {"filter": "x"},
        [{"filter": "x"}],
        [{"value": 1, "extra": 2}],
        [{"value": [{"value": 1}]}],
        [{"value": "x"}],
        [[1, 2]],
        [{"value": 1}, 2],
        {"value": None},
    ],
)
def test_anything_else_is_refused_in_one_line(value) -> None:
    with pytest.raises(RecipeError) as error:
        chain([value], 1.0, "models: a: weight")
    assert "models: a: weight" in str(error.value)
    assert "\n" not in str(error.value)


def test_constant_is_told_from_varying() -> None:
    assert chain([0.5], 1.0, "w").constant == 0.5
    assert chain([[0.5, 0.5]], 1.0, "w").constant == 0.5
    assert chain([[0.5, 0.6]], 1.0, "w").constant is None
    assert chain([{"filter": "q", "value": 0.5}], 1.0, "w").constant is None


def test_values_are_those_that_can_be_reached() -> None:
    schedule = chain([[{"filter": "q", "value": [1, 2]}, {"value": 3}, {"value": 4}]], 9.0, "w")
    assert schedule.values == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        [0.1, 0.2],
        [{"filter": "a", "value": 1.0}, {"value": 2.0}],
        [
            {"filter": "a", "value": [1.0, 2.0]},
            {"filter": "b", "value": 3.0},
            {"value": [4.0, 5.0]},
        ],
    ],
)
def test_the_plain_value_gives_the_same_schedule_back(value) -> None:
    schedule = chain([value], 1.0, "w")
    assert schedule.to_yaml() == value
    assert chain([schedule.to_yaml()], 1.0, "w") == schedule


RULES = [{"layers": [0, 2], "value": [1, 3]}, {"layers": [2, 5], "filter": "mlp", "value": 7}]


@pytest.mark.parametrize(
    ("tensor", "layer", "layers", "value"),
    [
        (Q, 0, 5, 1.0),
        (Q, 1, 5, 3.0),
        (Q, 2, 5, 0.5),
        ("model.layers.2.mlp.w", 2, 5, 7.0),
        ("model.embed_tokens.weight", None, 5, 1.0),
        (NORM, None, 5, 0.5),
        (NORM, None, 2, 1.0),
        ("visual.blocks.4.mlp.w", 4, 9, 2.0),  # no layer of the text: halfway up the tower
    ],
)
def test_a_rule_may_hold_for_some_layers(tensor, layer, layers, value) -> None:
    schedule = chain([RULES, 0.5], 9.0, "weight")
    assert schedule.at(tensor, layer, layers) == value
    assert schedule.constant is None
    assert schedule.to_yaml() == [
        {"layers": [0, 2], "value": [1, 3]},
        {"filter": "mlp", "layers": [2, 5], "value": 7},
        {"value": 0.5},
    ]


@pytest.mark.parametrize("span", [3, [1], [1, 1], [2, 1], [-1, 2], [0, True], ["0", 2], {}])
def test_layers_of_a_rule_are_a_range(span) -> None:
    with pytest.raises(RecipeError, match="weight: layers of a rule"):
        chain([[{"layers": span, "value": 1}]], 1.0, "weight")
