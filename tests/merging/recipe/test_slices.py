"""Slices read as models with values by layer or as a blueprint, and written again."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from merging.declarations.blueprints import Piece
from merging.errors import RecipeError
from merging.recipe import describe, dump, from_mapping, parse
from merging.recipe.slices import check_gaps


def source(model: str, start: int, stop: int, **values: Any) -> dict:
    one = {"model": model, "layer_range": [start, stop]}
    return {**one, "parameters": values} if values else one


def sliced(method: str, *slices: Any, **keys: Any) -> dict:
    listed = [one if isinstance(one, dict) else {"sources": one} for one in slices]
    return {"merge_method": method, "slices": listed, **keys}


FILTERED = [{"filter": "mlp", "value": [0, 1]}, {"value": 0.5}]
FORMS = {
    "one stack of one model": sliced("linear", [source("a", 0, 24)], [source("a", 8, 32)]),
    "a stack of several models": sliced(
        "linear", [source("a", 0, 24)], [source("b", 8, 24)], [source("a", 16, 32)]
    ),
    "one slice of other layers": sliced("linear", [source("a", 0, 8), source("b", 8, 16)]),
    "one model's own layers": sliced(
        "linear", [source("a", 8 * i, 8 * i + 8, weight=0.25) for i in range(4)]
    ),
    "a slice of whole models": sliced(
        "ties", [source("a", 0, 8, weight=FILTERED), source("base", 0, 8)], base_model="base"
    ),
    "slices of whole models": sliced(
        "ties",
        [source("a", 0, 8, weight=[0, 1])],
        [source("a", 8, 12, weight=2)],
        base_model="base",
        parameters={"density": [0.1, 0.9], "lambda": 0.7},
    ),
    "values on every level": sliced(
        "dare_ties",
        {
            "sources": [source("a", 0, 4, weight=FILTERED), source("b", 0, 4)],
            "parameters": {"density": [{"filter": "attn", "value": 0.3}], "lambda": 2},
        },
        [source("a", 2, 6), source("b", 2, 6, weight=[1, 2, 3], density=0.2)],
        base_model="base",
        parameters={"density": [0.5, 0.7], "weight": 0.4, "lambda": [0, 1]},
    ),
    "a slice that lacks a model": sliced(
        "ties",
        [source("a", 0, 4), source("b", 0, 4, weight=[0, 1])],
        [source("b", 2, 6)],
        base_model="base",
        parameters={"density": [0.3, 0.6]},
    ),
    "bases of their own": sliced(
        "task_arithmetic",
        [source("a", 0, 4), source("base", 2, 6)],
        {"sources": [source("a", 6, 8)], "base_model": "b"},
        base_model="base",
        tokenizer_source="a",
    ),
    "a base that one slice lists": sliced(
        "linear",
        [source("base", 0, 4, weight=3), source("a", 0, 4)],
        [source("a", 2, 6)],
        base_model="base",
    ),
    "rules with layers of their own": sliced(
        "ties",
        [source("a", 0, 4, weight=[{"layers": [1, 3], "value": 2}, {"value": 1}])],
        [source("a", 0, 4)],
        base_model="base",
    ),
    "switches, counts and words by slice": sliced(
        "nuslerp",
        {
            "sources": [source("a", 0, 4), source("b", 2, 6)],
            "parameters": {"nuslerp_flatten": False, "antipodes": "mergekit"},
        },
        {
            "sources": [source("a", 4, 8), source("b", 4, 8)],
            "parameters": {"nuslerp_row_wise": [{"filter": "mlp", "value": [True, False]}]},
        },
        parameters={"nuslerp_flatten": [{"filter": "attn", "value": True}, {"value": False}]},
    ),
    "a module": {
        "merge_method": "ties",
        "base_model": "base",
        "modules": {"text_decoder": {"slices": [{"sources": [source("a", 0, 4)]}]}},
    },
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_recipe_written_and_read_again_is_the_same(form: str) -> None:
    recipe = from_mapping(FORMS[form])
    again = parse(dump(recipe))
    assert again == recipe
    assert again.layers == recipe.layers
    assert dump(again) == dump(recipe)
    assert parse(yaml.safe_dump(FORMS[form])) == recipe
    assert describe(recipe) == describe(again)


def test_the_models_at_one_place_of_the_slices_are_one_of_the_merge() -> None:
    recipe = from_mapping(FORMS["bases of their own"])
    blueprint = recipe.blueprint
    assert blueprint is not None
    assert blueprint.base == (Piece("base", 2, 6), Piece("b", 6, 8))
    assert blueprint.sources == ((Piece("a", 0, 4), Piece("a", 6, 8)),)
    assert (recipe.base, [one.model for one in recipe.sources]) == ("base, b", ["a"])
    assert (blueprint.layers, recipe.tokenizer) == (6, "a")


def test_models_in_another_order_are_the_same_models() -> None:
    one = sliced(
        "linear",
        [source("a", 0, 2, weight=1), source("b", 0, 2, weight=3)],
        [source("b", 1, 3, weight=3), source("a", 1, 3, weight=1)],
    )
    recipe = from_mapping(one)
    assert [source.model for source in recipe.sources] == ["a", "b"]
    assert [source.weight.constant for source in recipe.sources] == [1, 3]


def test_slices_of_other_lengths_are_columns_of_their_models() -> None:
    blueprint = from_mapping(FORMS["a slice that lacks a model"]).blueprint
    assert blueprint is not None
    assert blueprint.sources == ((Piece("a", 0, 4), None), (Piece("b", 0, 4), Piece("b", 2, 6)))
    check_gaps(blueprint, "ties", weighs=True)
    with pytest.raises(
        RecipeError, match=r"slices\[1\]: a model is missing: 1 of 2 are listed, and slerp"
    ):
        check_gaps(blueprint, "slerp", weighs=False)


def test_filters_are_looked_for_in_the_model_s_own_names() -> None:
    scale = [{"filter": "layers.2.", "value": 5}, {"value": 1}]
    parameters = {"scale": scale}
    stack = sliced(
        "passthrough", [source("a", 1, 3)], [source("a", 0, 2)], [source("b", 2, 3)],
        parameters=parameters,
    )  # fmt: skip
    (model,) = from_mapping(stack).sources
    # as in mergekit 0.1.5: the result's layers are 1 and 2 of a, 0 and 1 of a, 2 of b
    name = "model.layers.{}.mlp.up_proj.weight"
    rows = [model.values["scale"].at(name.format(layer), layer, 5) for layer in range(5)]
    assert rows == [1, 5, 1, 1, 5]
    lone = sliced("passthrough", [source("a", 2, 4, **parameters)])
    (model,) = from_mapping(lone).sources
    assert [model.values["scale"].at(name.format(i), i, 2) for i in range(2)] == [5, 1]


def test_filters_of_what_holds_for_all_models_are_looked_for_in_the_result_s_names() -> None:
    t = [{"filter": "layers.0.", "value": 0.25}, {"value": 0.5}]
    pair = [source("a", 2, 4), source("b", 2, 4)]
    recipe = from_mapping(sliced("slerp", pair, base_model="a", parameters={"t": t}))
    rows = [recipe.parameters["t"].at(f"model.layers.{i}.x.weight", i, 2) for i in range(2)]
    assert rows == [0.25, 0.5]


def test_a_base_in_some_slices_is_one_model_among_others_where_it_is_no_origin() -> None:
    stack = sliced("passthrough", [source("a", 0, 2)], [source("b", 2, 4)], base_model="b")
    recipe = from_mapping(stack)
    assert recipe.blueprint is not None
    assert recipe.blueprint.sources == ((Piece("a", 0, 2), Piece("b", 2, 4)),)
    assert recipe.blueprint.base == (Piece("b", 0, 2), Piece("b", 2, 4))
    assert parse(dump(recipe)) == recipe
    pairs = [source("b", 0, 2), source("a", 0, 2)], [source("a", 2, 4), source("c", 2, 4)]
    blueprint = from_mapping(sliced("karcher", *pairs, base_model="b")).blueprint
    assert blueprint is not None
    assert blueprint.sources == (
        (Piece("b", 0, 2), Piece("a", 2, 4)),
        (Piece("a", 0, 2), Piece("c", 2, 4)),
    )


def test_switches_counts_and_words_may_differ_between_slices() -> None:
    first, second = [source("a", 0, 2), source("b", 0, 2)], [source("a", 1, 3), source("b", 1, 3)]
    one, other = ({"sources": row, "parameters": {}} for row in (first, second))
    recipe = from_mapping(
        sliced(
            "karcher",
            one | {"parameters": {"max_iter": 3}},
            other | {"parameters": {"max_iter": "20"}},
        )
    )
    steps = recipe.parameters["max_iter"]
    assert [steps.at(f"model.layers.{i}.x.weight", i, 4) for i in range(4)] == [3, 3, 20, 20]
    assert steps.at("model.embed_tokens.weight", None, 4) == 3
    assert steps.at("lm_head.weight", None, 4) == 20
    recipe = from_mapping(
        sliced(
            "ties",
            one,
            other | {"parameters": {"normalize": 0}},
            base_model="c",
            parameters={"normalize": [{"filter": "x.bias", "value": False}]},
        )
    )
    divides = recipe.parameters["normalize"]
    names = [f"model.layers.{i}.x.{kind}" for i in (1, 2) for kind in ("weight", "bias")]
    layers = (1, 1, 2, 2)
    assert [divides.at(name, i, 4) for name, i in zip(names, layers, strict=True)] == [
        True, False, False, False,
    ]  # fmt: skip
    assert "in parts of the model: average" in describe(recipe)


def test_what_is_measured_over_the_whole_model_may_not_differ() -> None:
    first = {"sources": [source("a", 0, 2)], "parameters": {"scope": "model"}}
    other = [source("a", 2, 4)]
    with pytest.raises(RecipeError, match="scope differs between slices; it holds for the whole"):
        from_mapping(sliced("ties", first, other, base_model="base"))


def test_what_has_no_effect_may_differ_between_slices() -> None:
    first = {"sources": [source("a", 0, 2)], "parameters": {"int8_mask": True}}
    recipe = from_mapping(sliced("ties", first, [source("a", 2, 4)], base_model="base"))
    assert any("int8_mask has no effect" in note for note in recipe.notes)


def test_what_mergekit_never_uses_is_noted() -> None:
    one = {"sources": [source("a", 0, 4)], "residual_weight": 0.5}
    assert any("residual_weight" in note for note in from_mapping(sliced("linear", one)).notes)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            sliced("ties", [source("a", 0, 4), source("b", 2, 6)], base_model="c"),
            ["slices[0]", "[0, 4] and [2, 6]", "list the base c"],
        ),
        (
            sliced("ties", [source("a", 0, 4), source("./a", 0, 4)], base_model="c"),
            ["slices[0]", "a is listed twice"],
        ),
        (sliced("ties", *[[source("a", 0, 1)]] * 257, base_model="c"), ["257", "256"]),
        (
            sliced(
                "ties", [source("a", 0, 4)], [source("a", 0, 4, normalize=True)], base_model="c"
            ),
            ["a", "normalize", "whole recipe"],
        ),
        (sliced("ties", [source("a", 0, 4)]), ["base_model"]),
        (
            {"merge_method": "ties", "base_model": "b", "modules": {"vision_tower": {}}},
            ["vision_tower", "images", "default"],
        ),
    ],
)
def test_a_mistake_in_slices_is_one_line(document: dict, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        from_mapping(document)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("start", "stop", "words"),
    [
        (3, 1, r"\[3, 1\] of a ends before it begins; did you mean \[1, 3\]\?"),
        (2, 2, "holds no layer"),
    ],
)
def test_a_range_without_layers_is_refused(start: int, stop: int, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        from_mapping(sliced("passthrough", [source("a", start, stop)]))
