"""Outlier rates against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.checkpoints import open_family
from merging.declarations.shifts import offsets as expert_offsets
from merging.engines import fused
from merging.engines.eager import Stream
from merging.evidence.outliers import measure_outliers
from tests.families import load_model, small_family, write_family


@pytest.mark.parametrize("kind", ["eager", "fused", "in pieces"])
def test_counts_are_those_of_the_deltas(kind: str, tmp_path) -> None:
    parent = small_family(tmp_path, layers=2, hidden=32, kv=16, inner=48, dtype=torch.bfloat16)
    family = open_family(parent / "base", {n: parent / n for n in ("expert0", "expert1")})
    chosen = fused.FusedStream if kind == "fused" else Stream
    resident = 0 if kind == "in pieces" else None
    rates = measure_outliers(
        chosen(family, chunk=333, resident=resident), layer_outlier=2.0, linear_outlier=4.0
    )
    base = load_model(parent / "base")
    for row, name in enumerate(("expert0", "expert1")):
        tuned = load_model(parent / name)
        sizes = {
            entry.name: (tuned[entry.name].float() - base[entry.name].float()).abs().double()
            for entry in rates.linears
        }
        for column, entry in enumerate(rates.linears):
            own = sizes[entry.name]
            pooled = torch.cat(
                [
                    sizes[e.name].flatten()
                    for e in rates.linears
                    if e.place.layer == entry.place.layer
                ]
            )
            layer = int((own > float(np.float32(2.0 * pooled.mean().item()))).sum())
            linear = int((own > float(np.float32(4.0 * own.mean().item()))).sum())
            assert rates.layer_counts[row, column] == layer
            assert rates.linear_counts[row, column] == linear
    assert [entry.name for entry in rates.linears] == sorted(n for n in base if "_proj" in n)


def test_layers_of_two_stacks_are_not_pooled(tmp_path) -> None:
    names = ("encoder.block.0.wi.weight", "decoder.block.0.wi.weight")
    generator = torch.Generator().manual_seed(0)
    base = {name: torch.zeros(40, 50) for name in names}
    expert = {
        name: torch.randn(40, 50, generator=generator) * scale
        for name, scale in zip(names, (1.0, 100.0), strict=True)
    }
    parent = write_family(tmp_path, base, [expert])
    family = open_family(parent / "base", {"expert0": parent / "expert0"})
    rates = measure_outliers(Stream(family), layer_outlier=2.0, linear_outlier=2.0)
    assert (rates.layer_counts == rates.linear_counts).all()  # each block is one linear


def test_offsets_of_no_linears_are_empty() -> None:
    nothing = np.zeros(0)
    layer, linear = expert_offsets(nothing, nothing, nothing, nothing)
    assert layer.shape == linear.shape == (0,)


def test_offsets_by_hand() -> None:
    # two layers of two linears, 100 entries each; rates per layer 3 and 5, mean 4, so -1 and 1
    layers, numels = np.array([0, 0, 1, 1]), np.full(4, 100.0)
    layer, linear = expert_offsets(layers, numels, np.array([2, 4, 4, 6]), np.array([0, 2, 2, 4]))
    assert layer.tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert linear.tolist() == [-1.0, 0.0, 0.0, 1.0]


def test_an_empty_linear_counts_as_none() -> None:
    layer, linear = expert_offsets(
        np.array([0, 1]), np.array([0.0, 10.0]), np.array([0, 1]), np.array([0, 1])
    )
    assert np.isfinite(layer).all()
    assert np.isfinite(linear).all()
