"""Slices held against what mergekit 0.1.5 makes of them, in float32, on the same tiny models."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load

from tests.families import Tensors, merged, write_model

DATA = Path(__file__).parents[1] / "data" / "mergekit"
RECIPES = yaml.safe_load((DATA / "slices.yaml").read_text())


@pytest.fixture(scope="module")
def stored() -> Tensors:
    """models/NAME/TENSOR, and RECIPE/TENSOR of every result."""
    return load(gzip.decompress((DATA / "slices.safetensors.gz").read_bytes()))


@pytest.fixture(scope="module")
def parent(stored, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    for name in ("base", "model_a", "model_c", "model_d"):
        write_model(folder / name, under(stored, f"models/{name}/"), {"num_hidden_layers": 6})
    return folder


def under(stored: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


@pytest.mark.parametrize("name", RECIPES)
def test_slices_equal_mergekit(name: str, stored, parent, tmp_path) -> None:
    ours = merged(RECIPES[name], parent, tmp_path / "out")
    theirs = under(stored, f"{name}/")
    assert ours.keys() == theirs.keys()
    worst = max(float(torch.max(torch.abs(ours[key] - theirs[key]))) for key in theirs)
    assert worst <= 2e-6
