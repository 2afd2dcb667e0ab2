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
from merging.instructions import elementary
from merging.run import merge


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


def test_on_the_cpu_files_are_the_source(family: Family) -> None:
    assert isinstance(sources.source_for(family, "cpu"), sources.Files)


def test_a_family_kept_in_memory_is_loaded_once(family: Family, monkeypatch) -> None:
    monkeypatch.setattr(sources, "fits", lambda family, device: True)
    monkeypatch.setattr(sources, "_kept", [])
    first = sources.source_for(family, "cpu")
    assert isinstance(first, sources.KeptFamily)
    assert sources.source_for(family, "cpu") is first
    file = family.base.tensors["x"].file
    file.write_bytes(file.read_bytes())  # another content: another family
    second = sources.source_for(family, "cpu")
    assert second is not first
    sources.release("cpu")
    assert sources.source_for(family, "cpu") is not second


def test_merging_from_memory_writes_the_same_bytes(
    family: Family, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(merge, "_stream_class", lambda *_: Stream)
    models = [(name, {"density": 0.3}) for name in ("a", "b")]
    recipe = recipes.build(method="ties", base="base", models=models, folder=tmp_path)
    merge.merge(recipe, tmp_path / "files", device="cpu")
    resident = sources.KeptFamily(family, "cpu")
    run = merge.Run(recipe, family, tmp_path / "kept", False, 1 << 30, False, None, None)
    monkeypatch.setattr(merge, "source_for", lambda family, device: resident)
    run("cpu", None, True)
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

    monkeypatch.setattr(merge, "_stream_class", lambda *_: Stream)
    document = {
        "merge_method": parameters.pop("merge_method"), "base_model": "base",
        "models": [{"model": "a"}, {"model": "b"}], "parameters": parameters,
    }  # fmt: skip
    recipe = recipes.from_mapping(document, tmp_path)
    merge.merge(recipe, tmp_path / "here", device="cpu", chunk=64)
    monkeypatch.setattr(elementary, "total", on_the_host)
    with WithoutFloat64():
        merge.merge(recipe, tmp_path / "there", device="cpu", chunk=64)
    assert (tmp_path / "here/model.safetensors").read_bytes() == (
        tmp_path / "there/model.safetensors"
    ).read_bytes()


def short_of_memory(room: int, calls: list) -> object:
    """A run that finishes on a GPU only in chunks of `room` elements or less."""

    def run(device: str, chunk: int | None, kept: bool) -> merge.Finished:
        calls.append((device, chunk, kept))
        if device != "cpu" and (kept or chunk is None or chunk > room):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return merge.Finished("sha256:0", "eager", {})

    return run


def test_short_memory_means_smaller_chunks(monkeypatch) -> None:
    monkeypatch.setattr(merge, "release", lambda device: None)
    calls: list = []
    _, device, notes = merge.with_memory(short_of_memory(1 << 21, calls), "cuda", None)
    assert device == "cuda"
    assert calls == [("cuda", 1 << 24, True), ("cuda", 1 << 24, False), ("cuda", 1 << 21, False)]
    assert len(notes) == 2 and "16777216 elements and the models kept there" in notes[0]


def test_then_the_cpu(monkeypatch) -> None:
    monkeypatch.setattr(merge, "release", lambda device: None)
    calls: list = []
    _, device, notes = merge.with_memory(short_of_memory(0, calls), "cuda", None)
    assert device == "cpu"
    assert calls[-1] == ("cpu", None, False)
    assert "merged on the CPU" in notes[-1]


def test_a_device_may_say_it_in_words(monkeypatch) -> None:
    monkeypatch.setattr(merge, "release", lambda device: None)

    def run(device: str, chunk: int | None, kept: bool) -> merge.Finished:
        if device != "cpu":
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)")
        return merge.Finished("sha256:0", "eager", {})

    assert merge.with_memory(run, "mps", None)[1] == "cpu"


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_no_other_error_starts_again(kind: type[Exception]) -> None:
    def run(device: str, chunk: int | None, kept: bool) -> merge.Finished:
        raise kind("other")

    with pytest.raises(kind, match="other"):
        merge.with_memory(run, "cuda", None)
