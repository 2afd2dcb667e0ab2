"""Recipes as people publish them (tests/data/recipes): they run as they are, or say what is wrong.

The number before `layers` in a file's name says how many layers its models have.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from merging import recipe as recipes
from merging.errors import LINE, MergeError
from merging.run.merge import merge
from merging.run.preflight import check
from tests.families import Tensors, llama, load_model, tuned, write_model

PUBLISHED = Path(__file__).parents[1] / "data" / "recipes"
MODELS = ("base", "model_a", "model_c", "model_d")
SIZES = {"hidden": 4, "kv": 4, "inner": 6, "vocab": 8}


def family(parent: Path, layers: int) -> Path:
    base = llama(0, layers=layers, **SIZES)
    for seed, name in enumerate(MODELS):
        tensors = tuned(base, seed) if seed else base
        write_model(parent / name, tensors, {"num_hidden_layers": layers})
    return parent


@pytest.fixture(scope="module")
def families(tmp_path_factory) -> dict[int, Path]:
    return {n: family(tmp_path_factory.mktemp("published"), n) for n in (6, 32)}


def read(name: str, families: dict[int, Path]) -> recipes.Recipe:
    layers = int(name.rpartition("-")[2].removesuffix("layers"))
    return recipes.parse((PUBLISHED / f"{name}.yaml").read_text(), families.get(layers))


RUN = {  # how many layers the result has
    "00-32layers": 32,
    "03-32layers": 8,
    "04-32layers": 55,
    "05-32layers": 32,
    "15-32layers": 56,
    "34-32layers": 32,
    "56-32layers": 32,
    "39-6layers": 6,
}


@pytest.mark.parametrize("name", RUN)
def test_it_runs_unchanged(name: str, families, tmp_path) -> None:
    recipe = read(name, families)
    report = check(recipe, tmp_path / "out")
    assert report.ok, report.problems
    merge(recipe, tmp_path / "out", device="cpu")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == RUN[name]
    result = load_model(tmp_path / "out")
    layers = {key.split(".")[2] for key in result if ".layers." in key}
    assert len(layers) == RUN[name]
    assert all(torch.isfinite(tensor).all() for tensor in result.values())
    assert recipes.parse(recipes.dump(recipe), recipe.folder) == recipe


def row(tensors: Tensors, layer: int) -> torch.Tensor:
    return tensors[f"model.layers.{layer}.self_attn.q_proj.weight"]


def test_a_published_stack_holds_the_layers_it_names(families, tmp_path) -> None:
    merge(read("15-32layers", families), tmp_path / "out", device="cpu")
    result, a, c = (
        load_model(folder)
        for folder in (tmp_path / "out", families[32] / "model_a", families[32] / "model_c")
    )
    origins = [(a, i) for i in range(24)] + [(c, i) for i in range(8, 24)]
    origins += [(a, i) for i in range(16, 32)]
    for place, (model, layer) in enumerate(origins):
        assert torch.equal(row(result, place), row(model, layer).half())


def test_a_published_gradient_runs_along_the_layers(families, tmp_path) -> None:
    merge(read("05-32layers", families), tmp_path / "out", device="cpu")
    result, a, c = (
        load_model(folder)
        for folder in (tmp_path / "out", families[32] / "model_a", families[32] / "model_c")
    )
    # t of self_attn goes from 0 to 1: the first layer is model_a's, the last model_c's
    assert torch.equal(row(result, 0), row(a, 0).bfloat16())
    assert torch.allclose(row(result, 31).float(), row(c, 31), atol=2e-4)


WRONG = {
    "10-40layers": ["line 11", "'merge_method'", "twice"],
    "12-40layers": ["'harmony_forge'", "not known"],
    "16-32layers": ["model_a+lora", "adapter"],
    "17-40layers": ["'lamda'", "did you mean lambda?"],
    "42-80layers": ["'pad_to_multiple_of'", "under tokenizer:"],
    "43-1-40layers": ["'normalize'", "under parameters:"],
    "46-60layers": ["tokenizer_source", "union"],
    "54-32layers": ["tokenizer_source", "union"],
}


@pytest.mark.parametrize("name", WRONG)
def test_it_is_answered_in_one_line(name: str, families, tmp_path) -> None:
    with pytest.raises(MergeError) as error:
        merge(read(name, families), tmp_path / "out", device="cpu")
    text = str(error.value)
    assert all(word in text for word in WRONG[name]), text
    assert len(text) <= LINE
    assert "\n" not in text
