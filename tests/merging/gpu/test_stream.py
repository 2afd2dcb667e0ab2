"""The GPU's kernels against torch: the same bytes. Interpreted on the CPU where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging import engine, merge
from merging import recipe as recipes
from merging.engine import Stream
from merging.errors import NonFinite
from merging.gpu import stream as gpu
from tests.engines import RECIPES, awkward, cut_exactly, merged_bytes, mixed_family, one_tensor


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_family(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("name", RECIPES)
def test_kernels_and_torch_write_the_same_bytes(
    name: str, family: Path, tmp_path: Path, monkeypatch
) -> None:
    # interpreted kernels cut numbers off where they should round them to 16 bits: not asked here
    written = [
        merged_bytes(family, name, tmp_path / kind.engine, monkeypatch, kind, "float32")
        for kind in (Stream, gpu.KernelStream)
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize("kind", awkward())
@pytest.mark.parametrize("density", [0.001, 0.2, 0.97])
def test_awkward_tensors_are_cut_exactly(
    kind: str, density: float, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(merge, "_stream_class", lambda *_: gpu.KernelStream)
    assert cut_exactly(awkward()[kind], density, tmp_path)


def test_a_value_that_is_not_finite_is_named(tmp_path: Path, monkeypatch) -> None:
    delta = torch.randn(400, 400)
    delta[399, 398] = torch.nan
    folder = one_tensor(tmp_path, delta)
    recipe = recipes.build(
        method="magnitude", base="base", models=[("expert", {"density": 0.2})], folder=folder
    )
    monkeypatch.setattr(merge, "_stream_class", lambda *_: gpu.KernelStream)
    with pytest.raises(NonFinite, match=r"expert: tensor w holds nan at flat index 159998"):
        merge.merge(recipe, tmp_path / "out", device="cpu")


def test_where_kernels_cannot_be_made_they_are_not_used(family: Path, monkeypatch) -> None:
    recipe = recipes.build(method="ties", base="base", models=[("expert0", {})], folder=family)
    opened = merge.open_recipe(recipe)
    monkeypatch.setattr(gpu, "WORTH_COMPILING", 0)
    monkeypatch.setattr(gpu, "can_compile", lambda device: True)
    assert merge._stream_class(opened, recipe, "cuda") is gpu.KernelStream
    monkeypatch.undo()
    assert not gpu.can_compile("cuda:99")  # no such device: nothing runs there
    monkeypatch.setattr(gpu, "WORTH_COMPILING", 0)
    assert merge._stream_class(opened, recipe, "cuda") is Stream
