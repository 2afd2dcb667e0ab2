"""Where raw tensors come from. What needs a GPU runs here on the CPU, with the same code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from merging import recipe as recipes
from merging.checkpoints import Family, open_checkpoint, open_family
from merging.engines import sources
from merging.engines.eager import Stream
from merging.engines.residents import Residents
from merging.instructions import elementary
from merging.run.attempt import Order, attempt
from merging.run.merge import merge


@pytest.fixture
def family(tmp_path: Path) -> Family:
    generator = torch.Generator().manual_seed(1)
    for name in ("base", "a", "b"):
        tensors = {
            "x": torch.randn(50, 7, generator=generator),
            "y": torch.randn(301, generator=generator).bfloat16(),
        }
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
    opened = [open_checkpoint(tmp_path / name) for name in ("base", "a", "b")]
    return open_family(opened[0], opened[1:])


def pieces(source: sources.RawTensors, family: Family) -> list[torch.Tensor]:
    return [
        source.read(model, entry.name, start, stop)
        for model in family.models
        for entry in family.merged
        for start, stop in ((0, 5), (5, entry.numel), (3, 3), (0, entry.numel))
    ]


def test_every_source_hands_out_the_same_elements(family: Family) -> None:
    expected = pieces(sources.Files(), family)
    others = (sources.Staging("cpu", locked=False), sources.KeptFamily(family, "cpu"))
    for other in others:
        for found, wanted in zip(pieces(other, family), expected, strict=True):
            assert found.dtype == wanted.dtype
            assert torch.equal(found, wanted)


def test_a_staged_piece_outlives_the_next_reads(family: Family) -> None:
    staging = sources.Staging("cpu", locked=False)
    first = staging.read(family.base, "x", 0, 350)
    kept = first.clone()
    for _ in range(3):
        staging.read(family.experts[0], "x", 0, 350)
    assert torch.equal(first, kept)


def test_a_family_is_known_by_its_files(family: Family) -> None:
    before = sources.family_key(family)
    assert sources.family_key(family) == before
    file = family.base.tensors["x"].file
    file.write_bytes(file.read_bytes())
    assert sources.family_key(family) != before


def test_bytes_of_the_merged_tensors_of_all_models(family: Family) -> None:
    assert sources.resident_bytes(family) == 3 * (350 * 4 + 301 * 2)


def test_merging_from_memory_writes_the_same_bytes(family: Family, tmp_path: Path) -> None:
    models = [(name, {"density": 0.3}) for name in ("a", "b")]
    recipe = recipes.build(method="ties", base="base", models=models, folder=tmp_path)
    merge(recipe, tmp_path / "files", device="cpu", engine=Stream)
    residents = Residents(fits=lambda family, device: True)
    order = Order(
        recipe, family, tmp_path / "kept", overwrite=False, shard_bytes=1 << 30, engine=Stream,
        residents=residents,
    )  # fmt: skip
    attempt(order, "cpu", None, True)
    assert isinstance(residents.source(family, "cpu"), sources.KeptFamily)
    assert (tmp_path / "files/model.safetensors").read_bytes() == (
        tmp_path / "kept/model.safetensors"
    ).read_bytes()


class WithoutFloat64(TorchDispatchMode):
    """A device that has no such type, as Apple's."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            assert not (isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64), function
        return result


@pytest.mark.parametrize(
    "parameters",
    [
        {"merge_method": "linear"},
        {"merge_method": "ties", "density": 0.3},
        {"merge_method": "ties", "density": 0.3, "scope": "model"},
        {"merge_method": "dare_ties", "density": 0.5, "rescale_by": "l1"},
        {"merge_method": "dppa", "density": 0.3, "amplification": [1.5, 1.0]},
        {"merge_method": "pcb"},
    ],
)
def test_no_method_needs_float64_on_the_device(
    parameters: dict, family: Family, tmp_path: Path, monkeypatch
) -> None:
    def on_the_host(values: torch.Tensor) -> float:
        return float(values.numpy().sum(dtype=np.float64))

    document = {
        "merge_method": parameters.pop("merge_method"), "base_model": "base",
        "models": [{"model": "a"}, {"model": "b"}], "parameters": parameters,
    }  # fmt: skip
    recipe = recipes.from_mapping(document, tmp_path)
    merge(recipe, tmp_path / "here", device="cpu", chunk=64, engine=Stream)
    monkeypatch.setattr(elementary, "total", on_the_host)
    with WithoutFloat64():
        merge(recipe, tmp_path / "there", device="cpu", chunk=64, engine=Stream)
    assert (tmp_path / "here/model.safetensors").read_bytes() == (
        tmp_path / "there/model.safetensors"
    ).read_bytes()
