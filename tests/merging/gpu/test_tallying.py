"""A family in a GPU's memory is scanned there in one pass, and its sketch is the CPU's. Where there
is no GPU the kernels are interpreted on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from merging.checkpoints import Family, open_checkpoint, open_family
from merging.engines.eager import Stream
from merging.engines.sources import KeptFamily
from merging.errors import NonFinite
from merging.gpu.stream import KernelStream
from merging.sketches.scan import scan

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = {
    "model.embed_tokens.weight": (70, 131),  # more than one part
    "model.layers.0.mlp.up_proj.weight": (40, 30),
    "model.layers.0.mlp.down_proj.weight": (30, 40),
    "model.layers.1.mlp.up_proj.weight": (40, 33),
    "model.norm.weight": (1,),
    "nothing": (0, 4),
}
EXACT = ("counts", "fine", "ties", "zeros", "max_abs", "layer_outliers", "linear_outliers",
         "sample", "sample_base", "sample_tensor")  # fmt: skip
ADDED = ("l1", "l2", "dots", "base_l2")


def family(folder: Path, odd: float = 1.0) -> Family:
    """Three experts of several types; one entry of the second one is odd."""
    generator = torch.Generator().manual_seed(11)
    types = (torch.bfloat16, torch.float32, torch.bfloat16, torch.float16)
    base = {name: torch.randn(shape, generator=generator) / 8 for name, shape in SHAPES.items()}
    for index, kind in enumerate(types):
        step = {n: torch.randn(v.shape, generator=generator) / 100 for n, v in base.items()}
        tensors = {n: v + step[n] * (step[n].abs() > 0.002) * bool(index) for n, v in base.items()}
        if index == 1:
            tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = odd
        path = folder / ("base" if index == 0 else f"expert{index - 1}")
        path.mkdir(parents=True)
        stored = {name: value.to(kind).contiguous() for name, value in tensors.items()}
        save_file(stored, path / "model.safetensors")
        (path / "config.json").write_text('{"model_type": "llama"}')
    names = [f"expert{i}" for i in range(3)]
    root = open_checkpoint(folder / "base", "base")
    return open_family(root, [open_checkpoint(folder / name, name) for name in names])


@pytest.mark.parametrize("odd", [1.0, 1e6], ids=["usual", "larger than all buckets"])
def test_the_sketch_is_that_of_the_cpu(odd: float, tmp_path: Path) -> None:
    opened = family(tmp_path, odd)
    here = scan(opened, engine=Stream)
    kept = KeptFamily(opened, DEVICE)
    there = scan(opened, device=DEVICE, engine=KernelStream, source=kept)
    for name in EXACT:
        assert np.array_equal(getattr(there, name), getattr(here, name)), name
    for name in ADDED:
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), 1e-5, 1e-6)
    assert here.counts.sum() > 10_000 and here.linear_outliers.any()
    assert (here.fine.sum() - here.ties.sum()) > 1000


def test_a_pass_counts_all_tensors(tmp_path: Path) -> None:
    opened = family(tmp_path)
    stream = KernelStream(opened, device=DEVICE, source=KeptFamily(opened, DEVICE))
    counted = [stream.tally(entry) for entry in opened.merged]
    assert [one is None for one in counted] == [entry.numel == 0 for entry in opened.merged]
    assert all(one.whole for one in counted if one is not None)
    bounds = np.full((len(opened.merged), 3, 2), (0.0, 0.01))
    above = stream.counts_above(opened.merged, bounds)
    expected = Stream(opened).counts_above(opened.merged, bounds)
    assert np.array_equal(above, expected) and above.any()


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    opened = family(tmp_path, float("nan"))
    source = KeptFamily(opened, DEVICE)
    with pytest.raises(NonFinite, match=r"expert0: tensor model\.layers\.1.* holds nan"):
        scan(opened, device=DEVICE, engine=KernelStream, source=source)
