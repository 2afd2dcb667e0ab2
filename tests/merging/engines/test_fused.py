"""The fused loops against torch: the same bytes, for every method, type and chunking."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging import kernels
from merging import recipe as recipes
from merging.engines import fused
from merging.engines.eager import Stream
from merging.engines.fused import sizes
from merging.errors import NonFinite
from merging.run.merge import merge
from tests.engines import RECIPES, awkward, cut_exactly, merged_bytes, mixed_family, one_tensor


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_family(tmp_path_factory.mktemp("fused"))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", ["float32", None])
def test_fused_and_torch_write_the_same_bytes(
    name: str, dtype: str | None, family: Path, tmp_path: Path, monkeypatch
) -> None:
    assert kernels.library() is not None, "no C compiler"
    torch_bytes = merged_bytes(family, name, tmp_path / "a", Stream, dtype)
    fused_bytes = merged_bytes(family, name, tmp_path / "b", fused.FusedStream, dtype)
    assert fused_bytes == torch_bytes
    if dtype is not None:
        return
    monkeypatch.setattr(sizes, "PIECE_BYTES", 1)  # nothing fits: every tensor in small pieces
    monkeypatch.setattr(sizes, "AT_ONCE", 300)
    assert merged_bytes(family, name, tmp_path / "c", fused.FusedStream, dtype) == torch_bytes


def test_without_a_compiler_torch_does_the_work(family: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "_target", lambda: None)
    kernels.library.cache_clear()
    try:
        recipe = recipes.build(method="ties", base="base", models=[("expert0", {})], folder=family)
        assert merge(recipe, tmp_path / "out", device="cpu").engine == "eager"
    finally:
        kernels.library.cache_clear()


def test_a_broken_compiler_is_no_reason_to_fail(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "_target", lambda: tmp_path / "kernels.so")
    monkeypatch.setattr(kernels, "_compiler", lambda: "false")
    kernels.library.cache_clear()
    try:
        assert kernels.library() is None
        assert list(tmp_path.iterdir()) == []
    finally:
        kernels.library.cache_clear()


@pytest.mark.parametrize("kind", awkward())
@pytest.mark.parametrize("density", [0.001, 0.2, 0.97])
@pytest.mark.parametrize("piece", [1 << 28, 1 << 16, 1])
@pytest.mark.parametrize("keys", [1 << 28, 0])
def test_awkward_tensors_are_cut_exactly(
    kind: str, density: float, piece: int, keys: int, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(sizes, "PIECE_BYTES", piece)
    monkeypatch.setattr(sizes, "KEYS_BYTES", keys)
    assert cut_exactly(awkward()[kind], density, tmp_path, fused.FusedStream)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_large_tensor_that_is_not_finite_is_named(bad: float, tmp_path: Path) -> None:
    delta = torch.randn(400, 400)
    delta[399, 398] = bad
    folder = one_tensor(tmp_path, delta)
    recipe = recipes.build(
        method="magnitude", base="base", models=[("expert", {"density": 0.2})], folder=folder
    )
    with pytest.raises(NonFinite, match=r"expert: tensor w holds .* at flat index 159998"):
        merge(recipe, tmp_path / "out", device="cpu", engine=fused.FusedStream)
