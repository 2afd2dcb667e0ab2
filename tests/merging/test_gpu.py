"""On a CUDA GPU: every engine writes the bytes that the CPU writes. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging import merge, sources
from merging import recipe as recipes
from merging.engine import Stream
from merging.gpu import stream as gpu
from tests.engines import RECIPES, awkward, cut_exactly, digest, mixed_family

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU is present")
ENGINES = {"eager": Stream, "kernels": gpu.KernelStream}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_family(tmp_path_factory.mktemp("gpu"))


def run(family: Path, name: str, out: Path, device: str) -> merge.Result:
    method, parameters = RECIPES[name]
    models = [(f"expert{i}", {}) for i in range(3)]
    recipe = recipes.build(
        method=method, base="base", models=models, parameters=parameters, folder=family
    )
    return merge.merge(recipe, out, device=device)


@pytest.mark.parametrize("engine_name", ENGINES)
@pytest.mark.parametrize("name", RECIPES)
def test_the_gpu_writes_the_bytes_of_the_cpu(
    name: str, engine_name: str, family: Path, tmp_path: Path, monkeypatch
) -> None:
    run(family, name, tmp_path / "cpu", "cpu")
    monkeypatch.setattr(merge, "_stream_class", lambda *_: ENGINES[engine_name])
    result = run(family, name, tmp_path / "gpu", "cuda")
    assert (result.device, result.engine) == ("cuda", engine_name)
    assert digest(tmp_path / "gpu") == digest(tmp_path / "cpu")
    monkeypatch.setattr(sources, "fits", lambda *_: False)  # read from files, in pieces
    sources.release("cuda")
    monkeypatch.setattr(merge, "GPU_CHUNK", 20_000)
    result = run(family, name, tmp_path / "pieces", "cuda")
    assert (result.device, result.engine) == ("cuda", engine_name)
    assert digest(tmp_path / "pieces") == digest(tmp_path / "cpu")


@pytest.mark.parametrize("engine_name", ENGINES)
@pytest.mark.parametrize("kind", awkward())
@pytest.mark.parametrize("density", [0.001, 0.2, 0.97])
def test_awkward_tensors_are_cut_exactly(
    kind: str, density: float, engine_name: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(merge, "_stream_class", lambda *_: ENGINES[engine_name])
    assert cut_exactly(awkward()[kind], density, tmp_path, "cuda")


def test_a_family_that_fits_is_read_once(family: Path, tmp_path: Path) -> None:
    sources.release("cuda")
    run(family, "ties", tmp_path / "a", "cuda")
    kept = sources._kept[0]
    run(family, "linear", tmp_path / "b", "cuda")
    assert sources._kept[0] is kept


def test_short_memory_ends_on_the_cpu(family: Path, tmp_path: Path) -> None:
    run(family, "ties", tmp_path / "cpu", "cpu")
    sources.release("cuda")
    free, total = torch.cuda.mem_get_info()
    taken = (total - free) / total
    torch.cuda.set_per_process_memory_fraction(taken / 1e6)
    try:
        result = run(family, "ties", tmp_path / "gpu", "cuda")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert result.device == "cpu" and any("CPU" in note for note in result.notes)
    assert digest(tmp_path / "gpu") == digest(tmp_path / "cpu")
