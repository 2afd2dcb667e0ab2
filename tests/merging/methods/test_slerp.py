"""SLERP of two models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from merging import recipe as recipes
from merging.errors import NonFinite, RecipeError
from merging.instructions import grams
from merging.methods.slerp import coefficients
from tests.families import llama, tuned, write_model
from tests.families import merged as merge_of
from tests.shelf import Case, blend, cases


def merged(points: list[torch.Tensor], t: float) -> torch.Tensor:
    return blend(points, coefficients(grams.gram(points), t))


@pytest.mark.parametrize("case", cases("slerp"))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    assert case.base is not None
    assert case.close(merged([case.base, *case.models], case.parameters["t"]))


def test_a_worked_example() -> None:
    # cos = 1 / sqrt(2 * 5) = 0.316228, angle 1.249046
    points = [torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 2.0, 1.0])]
    assert merged(points, 0.25).tolist() == pytest.approx([0.849237, 0.647659, 1.173067], abs=1e-6)
    assert merged(points, 0.5).tolist() == pytest.approx([0.616339, 1.232678, 1.232678], abs=1e-6)


@pytest.mark.parametrize("cosine", [-1.0, -0.9996, 0.0, 0.9, 0.9996, 1.0])
def test_the_ends_are_the_models_themselves(cosine: float) -> None:
    gram = np.array([[4.0, 6.0 * cosine], [6.0 * cosine, 9.0]])
    assert coefficients(gram, 0.0) == pytest.approx((1.0, 0.0), abs=1e-12)
    assert coefficients(gram, 1.0) == pytest.approx((0.0, 1.0), abs=1e-12)


def test_a_t_beyond_the_models_goes_on_along_the_arc_and_is_told() -> None:
    # a right angle: sin(-pi / 8) and sin(5 pi / 8)
    gram = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert coefficients(gram, 1.25) == pytest.approx((-0.38268343, 0.92387953))
    document = {"merge_method": "slerp", "models": ["a", "c"], "base_model": "a"}
    recipe = recipes.from_mapping({**document, "parameters": {"t": [0.5, -0.25]}})
    assert recipe.notes == ("t -0.25 leads beyond the two models; 0 is the one and 1 the other",)


def test_unit_vectors_stay_unit_vectors_on_the_way() -> None:
    for cosine in (-0.9, 0.0, 0.7, 0.999):
        gram = np.array([[1.0, cosine], [cosine, 1.0]])
        blended = np.array(coefficients(gram, 0.3))
        assert blended @ gram @ blended == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_beyond_a_cosine_of_09995_the_way_is_straight(sign: int) -> None:
    def at(cosine: float) -> tuple[float, float]:
        return coefficients(np.array([[1.0, sign * cosine], [sign * cosine, 1.0]]), 0.25)

    assert at(0.99951) == (0.75, 0.25)
    assert at(0.99949) != (0.75, 0.25)


def test_a_tensor_of_zeros_is_at_right_angles_to_all_others() -> None:
    half = np.sin(np.pi / 4)
    assert coefficients(np.array([[0.0, 0.0], [0.0, 5.0]]), 0.5) == pytest.approx((half, half))


def test_a_tensor_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(NonFinite):
        merged([torch.tensor([float("nan"), 1.0]), torch.ones(2)], 0.5)


def test_a_base_that_is_neither_model_lends_its_files_only(tmp_path: Path) -> None:
    base = llama(0, layers=1, hidden=8, kv=8, inner=12, vocab=8)
    for name, tensors in {"b": base, "a": tuned(base, 1), "c": tuned(base, 2, scale=0.05)}.items():
        write_model(tmp_path / name, tensors)
    plain = {"merge_method": "slerp", "models": ["a", "c"], "parameters": {"t": 0.3}}
    third = recipes.from_mapping({**plain, "base_model": "b"}, tmp_path)
    assert [note for note in third.notes if "slerp goes from a (t = 0) to c (t = 1)" in note]
    beside = merge_of({**plain, "base_model": "b"}, tmp_path, tmp_path / "third")
    among = merge_of({**plain, "base_model": "a"}, tmp_path, tmp_path / "first")
    assert recipes.from_mapping({**plain, "base_model": "a"}, tmp_path).notes == ()
    for name, tensor in among.items():
        assert torch.allclose(beside[name], tensor, rtol=0.0, atol=2e-6)


def test_t_given_to_a_model_is_answered_with_where_it_belongs() -> None:
    models = ["a", {"model": "c", "parameters": {"t": 0.4}}]
    for form in (
        {"models": models},
        {
            "slices": [
                {
                    "sources": [
                        {"model": "a", "layer_range": [0, 2]},
                        {"model": "c", "layer_range": [0, 2], "parameters": {"t": 0.4}},
                    ]
                }
            ]
        },
    ):
        with pytest.raises(RecipeError, match=r"c: t .*parameters:"):
            recipes.from_mapping({"merge_method": "slerp", "base_model": "a", **form})
