"""Whole merges held against mergekit 0.1.5, in float32: every method that draws nothing, its values
per model, along the layers, by filter and by slice."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from tests.families import merged, write_model

DATA = Path(__file__).parents[1] / "data" / "mergekit"
CASES = json.loads((DATA / "methods.json").read_text())


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    stored = load(gzip.decompress((DATA / "slices.safetensors.gz").read_bytes()))
    folder = tmp_path_factory.mktemp("methods")
    for name in ("base", "model_a", "model_c", "model_d"):
        tensors = {k.split("/")[2]: v for k, v in stored.items() if k.startswith(f"models/{name}/")}
        write_model(folder / name, tensors, {"num_hidden_layers": 6})
    return folder


def number(tensor: torch.Tensor) -> float:
    """sum_i x_i cos(i), in float64: every entry counts, and none for another."""
    values = tensor.flatten().double()
    index = torch.arange(1, 1 + values.numel(), dtype=torch.float64)
    return math.fsum((values * index.cos()).tolist())


@pytest.mark.parametrize("name", CASES)
def test_merges_equal_mergekit(name: str, parent: Path, tmp_path: Path) -> None:
    result = merged(CASES[name]["recipe"], parent, tmp_path / "out")
    numbers = {key: number(result[key]) for key in sorted(result)}
    theirs = dict(zip(numbers, CASES[name]["sums"], strict=True))
    assert numbers == pytest.approx(theirs, rel=0.0, abs=2e-6)
