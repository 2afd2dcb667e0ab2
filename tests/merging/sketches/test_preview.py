"""A first look against the whole scan: close, scaled to all entries, and never called exact."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from merging import recipe as recipes
from merging.checkpoints import open_family
from merging.engines import fused
from merging.errors import Cancelled
from merging.sketches import preview
from merging.sketches.plan import plan
from merging.sketches.scan import scan
from tests.families import document, llama, tuned, write_family, write_model

SIZES = {"layers": 2, "hidden": 256, "kv": 128, "inner": 512, "vocab": 512}


ONE_IN, BLOCK = 8, 64  # many small blocks


def family_of(folder: Path, dtype: torch.dtype = torch.float32):
    base = llama(0, **SIZES)
    models = [{n: t.to(dtype) for n, t in tuned(base, seed).items()} for seed in range(2)]
    write_family(folder, {n: t.to(dtype) for n, t in base.items()}, models)
    return open_family(folder / "base", {name: folder / name for name in ("expert0", "expert1")})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_says_about_what_the_scan_says(tmp_path: Path, dtype: torch.dtype) -> None:
    family = family_of(tmp_path, dtype)
    look, whole = preview.look(family, ONE_IN, BLOCK), scan(family)
    assert look is not None
    assert (look.exact, whole.exact) == (False, True)
    assert look.tensors == whole.tensors
    assert (look.counts.sum(axis=2) + look.zeros == look.numel).all()
    large = whole.numel > 10_000
    assert large.any()
    assert np.abs(look.sum_abs[:, large] / whole.sum_abs[:, large] - 1).max() < 0.05
    recipe = recipes.from_mapping(document("dppa", 2, {}), tmp_path)
    energies = [float(plan(recipe, one).summary["l2"]) for one in (look, whole)]
    assert abs(energies[0] - energies[1]) < 0.03


def test_small_tensors_are_looked_at_whole(tmp_path: Path) -> None:
    family = family_of(tmp_path)
    look, whole = preview.look(family, ONE_IN, 1 << 14), scan(family)
    assert look is not None
    few = whole.numel <= 1 << 14
    assert few.any()
    assert (look.counts[:, few] == whole.counts[:, few]).all()
    np.testing.assert_allclose(look.max_abs[:, few], whole.max_abs[:, few])


def test_a_family_that_is_read_in_no_time_has_none(tmp_path: Path) -> None:
    assert preview.preview(family_of(tmp_path)) is None


def test_without_the_loops_there_is_none(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(preview, "WORTH", 0)
    monkeypatch.setattr(fused, "is_worthwhile", lambda *_: False)
    assert preview.preview(family_of(tmp_path)) is None


def test_what_is_not_finite_is_left_to_the_scan(tmp_path: Path) -> None:
    family_of(tmp_path)
    broken = llama(0, **SIZES)
    broken["model.layers.1.mlp.up_proj.weight"][:] = float("nan")
    write_model(tmp_path / "broken", broken)
    family = open_family(tmp_path / "base", {"broken": tmp_path / "broken"})
    assert preview.look(family, ONE_IN, BLOCK) is None


def test_an_empty_tensor_is_no_obstacle(tmp_path: Path) -> None:
    base = {**llama(0, **SIZES), "model.layers.0.empty.weight": torch.zeros(0, 8)}
    write_family(tmp_path, base, [tuned(base, 1)])
    family = open_family(tmp_path / "base", {"e": tmp_path / "expert0"})
    look = preview.look(family, ONE_IN, BLOCK)
    assert look is not None
    assert np.isfinite(look.l1).all()


def test_a_page_that_is_closed_needs_none(tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        preview.look(family_of(tmp_path), ONE_IN, BLOCK, cancel)
