"""Whole-model measurements: what a guess saves, and which tensors a late sweep opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from merging import recipe as recipes
from merging.engines import fused
from merging.engines.eager import Stream
from merging.evidence import whole_model
from merging.evidence.whole_model import ModelSweep
from merging.instructions import Bounds, Competition
from merging.run.lowering import lower
from merging.run.preflight import open_recipe
from merging.selection.statistics import UPPER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two experts whose changes grow from tensor to tensor."""
    folder, generator = tmp_path_factory.mktemp("stages"), torch.Generator().manual_seed(2)
    for name, scale in {"base": 0.0, "a": 1.0, "b": 0.5}.items():
        tensors = {
            f"t{i}": torch.randn(200, 300, generator=generator) * scale * 4.0**i for i in range(3)
        }
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
    return folder


def recipe(folder: Path, variant: str = "pairwise") -> recipes.Recipe:
    return recipes.build(
        method="pcb",
        base="base",
        models=[("a", {}), ("b", {})],
        parameters={"density": 0.2, "variant": variant},
        folder=folder,
    )


def prepared(recipe: recipes.Recipe, kind: type[Stream]) -> tuple[object, int]:
    """The whole model's competition, and how many elements were read for it."""
    counts = []
    stream = kind(open_recipe(recipe), passes=6, progress=lambda report: counts.append(report.done))
    return lower(recipe, stream).evidence.values, counts[-1]


@pytest.mark.parametrize("variant", ["pairwise", "reference", "nlp", "vision"])
def test_a_guess_changes_no_bound_and_saves_passes(variant: str, folder, monkeypatch) -> None:
    plain, read_plainly = prepared(recipe(folder, variant), Stream)
    monkeypatch.setattr(whole_model, "WORTH_GUESSING", 0)
    guessed, read = prepared(recipe(folder, variant), fused.FusedStream)
    assert guessed == plain
    assert read < read_plainly + 180_000  # the sample counts as a pass


def test_a_late_sweep_opens_only_tensors_that_reach_its_buckets(folder) -> None:
    opened = []

    def sweep(reader, buckets):
        opened.append(reader.entry.name)
        return reader.sweep(buckets)

    stream = fused.FusedStream(open_recipe(recipe(folder)), passes=2)
    measure = ModelSweep(stream, sweep)
    upper = [row[UPPER] for row in measure([[UPPER], [UPPER]])]
    assert sorted(opened) == ["t0", "t1", "t2"]
    assert [int(counts.sum()) for counts in upper] == [180_000] * 2
    opened.clear()
    top = [int(np.flatnonzero(counts).max()) for counts in upper]
    rows = measure([[bucket] for bucket in top])
    assert opened == ["t2"]  # the changes of t2 are 16 times those of t0
    for counts, row, bucket in zip(upper, rows, top, strict=True):
        assert row[bucket].sum() == counts[bucket]


@pytest.mark.parametrize("variant", ["pairwise", "reference", "nlp", "vision"])
def test_both_engines_count_a_samples_scores_alike(variant: str, folder) -> None:
    sample = np.random.default_rng(1).standard_normal((2, 5000)).astype(np.float32)
    bounds = (Bounds(0.1, 2.0), Bounds(0.2, 1.5))
    game = Competition((), variant, (0, 1), bounds)
    family = open_recipe(recipe(folder))
    plain, quick = (
        kind(family).score_histograms(sample, game) for kind in (Stream, fused.FusedStream)
    )
    for a, b in zip(plain, quick, strict=True):
        assert np.array_equal(a, b)
