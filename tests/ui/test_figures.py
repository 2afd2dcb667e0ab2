"""Figures and packed histograms as plain values."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import plotly
import pytest

from merging import recipe as recipes
from merging.sketches.plan import plan
from merging.sketches.sketch import SketchedTensor
from tests.ui.sketches import MODULES, sketch
from ui import bins, figures, looks
from ui.theme import PLOTLY


def recipe(method: str, experts: int, **parameters: object) -> recipes.Recipe:
    values = {} if method == "task_arithmetic" else {"density": 0.2}
    return recipes.build(
        method=method,
        base="base",
        models=[(f"expert{i}", values) for i in range(experts)],
        parameters=parameters,
    )


def unpacked(packed: dict, experts: int) -> np.ndarray:
    raw = np.frombuffer(base64.b64decode(packed["counts"]), dtype="<f4")
    return raw.reshape(experts, len(packed["numel"]), -1)


def test_packed_histograms_hold_every_entry() -> None:
    made = sketch()
    table = bins.cells(made.tensors)
    packed = bins.pack(made, table, np.zeros((4, len(made.tensors))))
    counts = unpacked(packed, 4)
    assert counts.shape[2] == len(packed["edges"]) - 1 <= bins.MAX_COLUMNS
    assert np.array_equal(counts.sum(axis=2), table.pool(made.counts.sum(axis=2)))
    assert packed["edges"][0] == 0 and np.all(np.diff(packed["edges"]) > 0)
    assert packed["edges"][-1] >= made.max_abs.max()
    np.testing.assert_allclose(packed["l2"], table.pool(made.l2.sum(axis=2)), rtol=1e-6)


def test_cells_follow_the_forward_pass_and_leave_the_rest_outside() -> None:
    table = bins.cells(sketch(layers=3).tensors)
    assert table.layers == (0, 1, 2)
    assert table.modules == MODULES
    assert list(table.row).count(-1) == 2  # embeddings, norm
    assert table.count == 3 * 7 + 2


def test_numbered_submodules_are_pooled() -> None:
    tensors = tuple(
        SketchedTensor(f"layers.0.experts.{i}.w.weight", 0, f"experts.{i}.w", True, 8, "", 1)
        for i in range(40)
    )
    table = bins.cells(tensors)
    assert table.modules == ("experts.w",)
    assert set(table.cell) == {0}


def test_a_family_without_layers_is_one_row() -> None:
    table = bins.cells((SketchedTensor("w", None, "w", False, 8, "", 0),))
    assert (table.layers, table.modules, table.linear) == ((0,), ("all",), False)


@pytest.mark.parametrize(("experts", "layers"), [(4, 32), (8, 32), (4, 80)])
def test_packed_family_stays_small(experts: int, layers: int) -> None:
    made = sketch(experts, layers, entries=64)
    table = bins.cells(made.tensors)
    packed = bins.pack(made, table, np.zeros((experts, len(made.tensors))))
    assert len(json.dumps(packed)) < 1_000_000


def test_every_figure_is_plain_json() -> None:
    made = sketch()
    own = looks.looks(list(made.experts), range(4))
    for figure in (
        figures.map_figure(own),
        figures.retention_figure(),
        figures.energy_figure(own),
        figures.cosine_figure(made, own),
    ):
        json.dumps(figure, allow_nan=False)


def test_map_has_a_heatmap_and_a_cut_for_each_expert() -> None:
    data = figures.map_figure(looks.looks(["a", "b"], [0, 3]))["data"]
    roles = [(trace["meta"]["role"], trace["meta"]["expert"]) for trace in data]
    assert roles[:-1] == [(role, e) for e in (0, 1) for role in ("heat", "rings", "cut")]
    assert roles[-1] == ("merged", 2)


def test_exact_retention_pools_to_the_summary() -> None:
    made = sketch()
    table = bins.cells(made.tensors)
    planned = plan(recipe("magnitude", 4), made)
    shares = figures.exact(planned, made, table)
    weight = table.pool(made.l2.sum(axis=2))
    pooled = (np.array(shares["l2"]) * weight).sum() / weight.sum()
    assert pooled == pytest.approx(planned.summary["l2"], abs=1e-4)


def test_a_change_is_packed_as_a_histogram_of_every_cell() -> None:
    tensors = sketch(layers=1, modules=("q", "v")).tensors
    table = bins.cells(tensors)
    q = [t.name for t in tensors].index("model.layers.0.q.weight")
    change = np.array([0.0, 0.3, -0.3, 1.5], dtype=np.float32)
    packed = bins.pack_change(change, np.full(4, q), table, [0.0, 0.25, 1.0, 2.0])
    shares = np.frombuffer(base64.b64decode(packed["shares"]), np.uint8).reshape(table.count, 3)
    cell = table.cell[q]
    assert shares[cell].tolist() == [0, 255, 128]
    assert packed["most"][cell] == 0.5
    assert packed["still"][cell] == 0.25
    assert shares.sum() == 383


def test_the_pages_plotly_is_the_version_of_the_package() -> None:
    package = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    heads = [file.read_text(encoding="utf-8")[:200] for file in (package, PLOTLY)]
    first, second = (re.findall(r"v(\d+\.\d+\.\d+)", head) for head in heads)
    assert first == second
    assert len(first) == 1
