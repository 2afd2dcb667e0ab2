"""Configs of stacked layers: their number and every list by layer follow."""

from __future__ import annotations

import pytest

from merging.checkpoints.depth import layers_in, restacked
from merging.errors import RecipeError

PLAIN = {"model_type": "llama", "num_hidden_layers": 3, "architectures": ["A", "B", "C"]}
ORDER = [0, 1, 1, 2]


def of(config: dict, order: list[int] = ORDER) -> dict:
    return restacked(config, [(config, layer) for layer in order])


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "n_layers", "num_layers"])
def test_the_number_of_layers_is_that_of_the_stack(key: str) -> None:
    assert of({key: 3, "hidden_size": 8}) == {key: 4, "hidden_size": 8}
    assert layers_in({key: 3}) == 3
    assert layers_in({"vision_config": {key: 5}, "text_config": {key: 3}}) == 3


def test_lists_with_an_item_a_layer_follow_and_others_stay() -> None:
    config = {
        **PLAIN,
        "layer_types": ["x", "y", "z"],
        "no_rope_layers": [1, 0, 1],
        "eos_token_id": [1, 2, 3],
        "rope_scaling": {"factors": [1, 2, 3]},
        "two": [1, 2],
    }
    result = of(config)
    assert result["layer_types"] == ["x", "y", "y", "z"]
    assert result["no_rope_layers"] == [1, 0, 0, 1]
    for key in ("architectures", "eos_token_id", "rope_scaling", "two"):
        assert result[key] == config[key]


def test_lists_of_layers_by_number_name_the_new_ones() -> None:
    assert of({**PLAIN, "mlp_only_layers": [1]})["mlp_only_layers"] == [1, 2]
    assert of({**PLAIN, "mlp_only_layers": []})["mlp_only_layers"] == []


def test_each_layer_is_of_the_kind_that_it_has_in_its_model() -> None:
    one, other = ({**PLAIN, "layer_types": list(kinds)} for kinds in ("abc", "xyz"))
    rows = [(one, 0), (other, 1), (other, 2), (one, 2)]
    assert restacked(one, rows)["layer_types"] == ["a", "y", "z", "c"]


def test_the_text_inside_a_model_of_images_is_what_is_stacked() -> None:
    config = {
        "text_config": {**PLAIN, "layer_types": ["x", "y", "z"]},
        "vision_config": {"num_hidden_layers": 3, "layer_types": ["p", "q", "r"]},
    }
    result = of(config)
    assert result["text_config"]["num_hidden_layers"] == 4
    assert result["text_config"]["layer_types"] == ["x", "y", "y", "z"]
    assert result["vision_config"] == config["vision_config"]


def test_kinds_that_follow_a_pattern_are_written_out() -> None:
    """Gemma 2 takes turns, sliding first: stacked layers keep the kind they were trained as."""
    config = {"model_type": "gemma2", "num_hidden_layers": 4, "sliding_window": 8}
    sliding, full = "sliding_attention", "full_attention"
    assert of(config, [0, 1, 1, 2])["layer_types"] == [sliding, full, full, sliding]
    unknown = {**config, "model_type": "of nobody"}
    assert "layer_types" not in of(unknown, [0, 1])


def test_leading_layers_of_another_kind_stand_before_all_others() -> None:
    config = {**PLAIN, "first_k_dense_replace": 1}
    assert of(config, [0, 0, 1, 2])["first_k_dense_replace"] == 2
    assert of(config, [1, 2])["first_k_dense_replace"] == 0
    with pytest.raises(RecipeError, match=r"layer 2 .*first_k_dense_replace"):
        of(config, [0, 1, 0, 2])
