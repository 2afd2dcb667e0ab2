"""The compiled kernels against torch: the same bytes. Traced as for a GPU, run on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging import compiled, engine, merge
from merging import recipe as recipes
from merging.engine import Stream
from merging.errors import NonFinite
from tests.engines import awkward, cut_exactly, merged_bytes, mixed_family, one_tensor

COMPILED = (
    "task_arithmetic_normalized",
    "ties_weights",
    "magnitude_rings",
    "dare_ties",
    "dppa_ties",
)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_family(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(autouse=True)
def traced(monkeypatch) -> None:
    """Kernels are traced into one graph as ever, and run by torch instead of generated code."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_and_eager_write_the_same_bytes(
    name: str, family: Path, tmp_path: Path, monkeypatch
) -> None:
    expected = merged_bytes(family, name, tmp_path / "a", monkeypatch, Stream, None)
    kind = compiled.CompiledStream
    assert merged_bytes(family, name, tmp_path / "b", monkeypatch, kind, None) == expected
    monkeypatch.setattr(engine, "RESIDENT", 0)  # every tensor in pieces
    monkeypatch.setattr(engine, "CHUNK", 40_000)
    assert merged_bytes(family, name, tmp_path / "c", monkeypatch, kind, None) == expected


@pytest.mark.parametrize("kind", awkward())
@pytest.mark.parametrize("density", [0.001, 0.2, 0.97])
def test_awkward_tensors_are_cut_exactly(
    kind: str, density: float, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(merge, "_stream_class", lambda *_: compiled.CompiledStream)
    assert cut_exactly(awkward()[kind], density, tmp_path)


def test_a_value_that_is_not_finite_is_named(tmp_path: Path, monkeypatch) -> None:
    delta = torch.randn(400, 400)
    delta[399, 398] = torch.nan
    folder = one_tensor(tmp_path, delta)
    recipe = recipes.build(
        method="magnitude", base="base", models=[("expert", {"density": 0.2})], folder=folder
    )
    monkeypatch.setattr(merge, "_stream_class", lambda *_: compiled.CompiledStream)
    with pytest.raises(NonFinite, match=r"expert: tensor w holds nan at flat index 159998"):
        merge.merge(recipe, tmp_path / "out", device="cpu")


def test_one_kernel_serves_all_tensors_and_all_numbers(
    family: Path, tmp_path: Path, monkeypatch
) -> None:
    merged_bytes(family, "dare_linear", tmp_path / "a", monkeypatch, compiled.CompiledStream, None)
    made = compiled.merging_kernel.cache_info().misses
    for density in (0.1, 0.7):
        recipe = recipes.build(
            method="dare_linear", base="base", folder=family,
            models=[(f"expert{i}", {"density": density, "weight": 0.3 + i}) for i in range(3)],
        )  # fmt: skip
        merge.merge(recipe, tmp_path / f"{density}", device="cpu")
    assert compiled.merging_kernel.cache_info().misses == made


def test_where_kernels_cannot_be_made_they_are_not_used(family: Path, monkeypatch) -> None:
    recipe = recipes.build(method="ties", base="base", models=[("expert0", {})], folder=family)
    opened = merge.open_recipe(recipe)
    monkeypatch.setattr(compiled, "WORTH_COMPILING", 0)
    monkeypatch.setattr(compiled, "can_compile", lambda device: True)
    assert merge._stream_class(opened, recipe, "cuda") is compiled.CompiledStream
    monkeypatch.undo()
    assert not compiled.can_compile("cuda:99")  # no such device: nothing runs there
    monkeypatch.setattr(compiled, "WORTH_COMPILING", 0)
    assert merge._stream_class(opened, recipe, "cuda") is Stream
