"""The fused loops against torch: the same bytes, for every method, type and chunking."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from merging import fused, kernels, merge
from merging import recipe as recipes
from merging.engine import Stream
from merging.errors import NonFinite

RECIPES = {
    "linear": ("linear", {}),
    "linear_sum": ("linear", {"normalize": False, "weight": 0.3}),
    "task_arithmetic": ("task_arithmetic", {"weight": 0.7, "lambda": 0.9}),
    "task_arithmetic_normalized": ("task_arithmetic", {"weight": 0.7, "normalize": True}),
    "ties": ("ties", {"density": 0.2}),
    "ties_weights": ("ties", {"density": 0.37, "weight": -0.8, "normalize": False}),
    "ties_model": ("ties", {"density": 0.2, "scope": "model"}),
    "magnitude_rings": ("magnitude", {"density": 0.3, "amplification": [1.7, 1.0, 0.0]}),
    "magnitude_model": ("magnitude", {"density": 0.1, "scope": "model"}),
    "magnitude_all": ("magnitude", {"density": 1.0, "amplification": [1.5]}),
    "magnitude_none": ("magnitude", {"density": 0.0}),
    "dare_linear": ("dare_linear", {"density": 0.4, "seed": 3}),
    "dare_ties": ("dare_ties", {"density": 0.4}),
    "dare_l1": ("dare_ties", {"density": 0.4, "rescale_by": "l1"}),
    "dppa": ("dppa", {"density": 0.2, "amplification": [1.8, 1.2, 1.0, 0.7]}),
    "dppa_max": ("dppa", {"density": 0.2, "amplification": [0.5, 2.0], "partition_mode": "max"}),
    "pcb": ("pcb", {"density": 0.1, "weight": 1.2}),
    "pcb_tensor": ("pcb", {"density": 0.2, "scope": "tensor"}),
    "pcb_reference": ("pcb", {"density": 0.1, "variant": "reference"}),
    "pcb_vision": ("pcb", {"density": 0.1, "variant": "vision"}),
    "pcb_of_magnitude": ("magnitude", {"density": 0.3, "consensus": "pcb", "pcb_density": 0.1}),
    "dppa_ties": ("dppa", {"density": 0.2, "consensus": "ties", "scale_dense": "max"}),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mixed types, ties at every cut (values on a coarse grid), sizes around the block's."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(7)
    folder = tmp_path_factory.mktemp("fused")
    shapes = {
        "model.embed_tokens.weight": (300, 97),
        "model.layers.0.mlp.up_proj.weight": (257, 129),
        "model.layers.0.mlp.down_proj.weight": (129, 257),
        "model.layers.1.mlp.up_proj.weight": (257, 129),
        "model.layers.1.mlp.down_proj.weight": (64, 16),
        "model.layers.1.mlp.gate_proj.weight": (450, 300),  # large enough to be sampled
        "model.layers.0.input_layernorm.weight": (129,),
        "model.norm.weight": (1,),
    }
    types = (torch.bfloat16, torch.float32, torch.float16, torch.bfloat16)
    base = {n: torch.randn(s, generator=generator) * 0.1 for n, s in shapes.items()}
    for index, dtype in enumerate(types):
        tensors = {}
        for name, value in base.items():
            noise = torch.randn(value.shape, generator=generator)
            step = (noise * 20).round() / 2000 if index else 0.0
            tensors[name] = (value + step).to(dtype).contiguous()
        path = folder / ("base" if index == 0 else f"expert{index - 1}")
        path.mkdir()
        save_file(tensors, path / "model.safetensors")
        (path / "config.json").write_text('{"model_type": "llama"}')
    return folder


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def run(family: Path, name: str, out: Path, monkeypatch, stream: type, dtype: str | None) -> str:
    method, parameters = RECIPES[name]
    models = [(f"expert{i}", {}) for i in range(3)]
    recipe = recipes.build(
        method=method, base="base", models=models, parameters=parameters, dtype=dtype, folder=family
    )
    monkeypatch.setattr(merge, "_stream_class", lambda *_: stream)
    result = merge.merge(recipe, out, device="cpu")
    assert result.engine == stream.engine
    return digest(out)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", ["float32", None])
def test_fused_and_torch_write_the_same_bytes(
    name: str, dtype: str | None, family: Path, tmp_path: Path, monkeypatch
) -> None:
    assert kernels.library() is not None, "no C compiler"
    torch_bytes = run(family, name, tmp_path / "a", monkeypatch, Stream, dtype)
    fused_bytes = run(family, name, tmp_path / "b", monkeypatch, fused.FusedStream, dtype)
    assert fused_bytes == torch_bytes
    monkeypatch.setattr(fused, "PIECE_BYTES", 1)  # nothing fits: every tensor in small pieces
    assert run(family, name, tmp_path / "c", monkeypatch, fused.FusedStream, dtype) == torch_bytes


def test_without_a_compiler_torch_does_the_work(family: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(kernels, "_target", lambda: None)
    kernels.library.cache_clear()
    try:
        recipe = recipes.build(method="ties", base="base", models=[("expert0", {})], folder=family)
        assert merge.merge(recipe, tmp_path / "out", device="cpu").engine == "eager"
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


def one_tensor(folder: Path, delta: torch.Tensor) -> Path:
    """A base of zeros and one expert that is `delta`."""
    from safetensors.torch import save_file

    for name, value in {"base": torch.zeros_like(delta), "expert": delta}.items():
        (folder / name).mkdir(parents=True)
        save_file({"w": value.contiguous()}, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
    return folder


def awkward() -> dict[str, torch.Tensor]:
    """Changes whose sample tells little: sorted, nearly all zero, all equal, one column alive."""
    count = 400
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(count, count, generator=generator)
    column = torch.zeros(count, count)
    column[:, 7] = noise[:, 7]
    return {
        "sorted": noise.flatten().sort().values.reshape(count, count),
        "zeros": torch.where(noise > 2.5, noise, 0.0),
        "equal": torch.full((count, count), 0.25),
        "column": column,
    }


@pytest.mark.parametrize("kind", awkward())
@pytest.mark.parametrize("density", [0.001, 0.2, 0.97])
@pytest.mark.parametrize("piece", [1 << 28, 1 << 16, 1])
@pytest.mark.parametrize("keys", [1 << 28, 0])
def test_awkward_tensors_are_cut_exactly(
    kind: str, density: float, piece: int, keys: int, tmp_path: Path, monkeypatch
) -> None:
    delta = awkward()[kind]
    folder = one_tensor(tmp_path, delta)
    recipe = recipes.build(
        method="magnitude", base="base", models=[("expert", {"density": density})], folder=folder
    )
    monkeypatch.setattr(merge, "_stream_class", lambda *_: fused.FusedStream)
    monkeypatch.setattr(fused, "PIECE_BYTES", piece)
    monkeypatch.setattr(fused, "KEYS_BYTES", keys)
    merge.merge(recipe, tmp_path / "out", device="cpu")
    from safetensors.torch import load_file

    merged = load_file(tmp_path / "out" / "model.safetensors")["w"].flatten()
    flat = delta.flatten()
    kept = int(density * flat.numel())
    order = torch.sort(flat.abs(), descending=True, stable=True).indices[:kept]
    expected = torch.zeros_like(flat)
    expected[order] = flat[order]
    assert torch.equal(merged, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_large_tensor_that_is_not_finite_is_named(
    bad: float, tmp_path: Path, monkeypatch
) -> None:
    delta = torch.randn(400, 400)
    delta[399, 398] = bad
    folder = one_tensor(tmp_path, delta)
    recipe = recipes.build(
        method="magnitude", base="base", models=[("expert", {"density": 0.2})], folder=folder
    )
    monkeypatch.setattr(merge, "_stream_class", lambda *_: fused.FusedStream)
    with pytest.raises(NonFinite, match=r"expert: tensor w holds .* at flat index 159998"):
        merge.merge(recipe, tmp_path / "out", device="cpu")
