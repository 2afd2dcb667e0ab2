"""Keys that stand where they mean nothing are answered with where they belong."""

from __future__ import annotations

import pytest

from merging.errors import LINE, RecipeError
from merging.recipe import from_mapping
from tests.families import document

SLICE = {"sources": [{"model": "a", "layer_range": [0, 4]}]}


def sliced(**keys: object) -> dict:
    return {"merge_method": "linear", "slices": [{**SLICE, **keys}]}


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (document("ties", 2, normalize=False), ["'normalize'", "under parameters:"]),
        (document("ties", 2, int8_mask=True), ["'int8_mask'", "under parameters:"]),
        (document("ties", 2, density=0.5), ["'density'", "under parameters:"]),
        (document("ties", 2, pad_to_multiple_of=8), ["'pad_to_multiple_of'", "under tokenizer:"]),
        (document("ties", 2, layer_range=[0, 4]), ["'layer_range'", "source of a slice"]),
        (document("ties", 2, random_seed=3), ["'random_seed'", "command line", "seed:"]),
        (document("ties", 2, allow_crimes=True), ["'allow_crimes'", "leave it out"]),
        (document("ties", 2, {"dtype": "bfloat16"}), ["parameters", "'dtype'", "merge_method:"]),
        (document("ties", [{"dtype": "bfloat16"}]), ["expert0", "'dtype'", "merge_method:"]),
        (document("ties", 2, {"lamda": 0.5}), ["'lamda'", "did you mean lambda?"]),
        (document("ties", 2, dtpye="bfloat16"), ["'dtpye'", "did you mean dtype?"]),
        (
            {**document("ties", 1), "models": [{"model": "a", "weight": 1}]},
            ["models[0]", "'weight'", "under parameters:"],
        ),
        (sliced(weight=1), ["slices[0]", "'weight'", "under parameters:"]),
        (sliced(layer_range=[0, 4]), ["slices[0]", "'layer_range'", "under sources:"]),
        (sliced(dtype="float16"), ["slices[0]", "'dtype'", "merge_method:"]),
        (
            sliced(sources=[{**SLICE["sources"][0], "weight": 1}]),
            ["slices[0]", "'weight'", "under parameters:"],
        ),
        (
            sliced(sources=[{**SLICE["sources"][0], "layers": 1}]),
            ["slices[0]", "'layers'", "layer_range"],
        ),
        (
            {"merge_method": "linear", "modules": {"default": {**SLICE, "models": ["a"]}}},
            ["modules: default", "'sources'", "slice"],
        ),
    ],
)
def test_a_stray_key_is_one_line_that_says_where_it_belongs(recipe: dict, words: list[str]) -> None:
    with pytest.raises(RecipeError) as error:
        from_mapping(recipe)
    text = str(error.value)
    assert all(word in text for word in words), text
    assert len(text) <= LINE and "\n" not in text


def test_what_changes_nothing_is_taken_with_a_remark() -> None:
    notes = from_mapping(document("ties", 2, {"int8_mask": True}, name="x", out_dtype="float16"))
    assert [note for note in notes.notes if note.startswith("int8_mask has no effect")]
    slerp = from_mapping(document("slerp", 1, {"t": 0.5, "normalize": True}))
    assert "normalize has no effect with slerp" in slerp.notes
    for value in (True, False):  # mergekit's sce knows nothing of it either
        sce = from_mapping(document("sce", 2, {"normalize": value}))
        assert "normalize has no effect with sce" in sce.notes


def test_a_value_of_the_whole_recipe_may_be_said_again_by_a_model() -> None:
    repeated = [{"weight": 1, "lambda": 0.9}]
    recipe = from_mapping(document("ties", repeated, {"lambda": 0.9}))
    assert recipe.strength.constant == 0.9
    with pytest.raises(RecipeError, match="lambda holds for the whole recipe"):
        from_mapping(document("ties", repeated, {"lambda": 0.8}))
