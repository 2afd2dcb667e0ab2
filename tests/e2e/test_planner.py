"""The browser's planner held to the engine's: random knobs for every way to prune, on sketches of
real checkpoints. Both execute the laws of `sketches.laws`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merging import demo
from merging.checkpoints import open_checkpoint, open_family, resolve
from merging.methods import PRUNERS
from merging.sketches.plan import plan
from merging.sketches.scan import scan
from merging.sketches.sketch import FamilySketch
from tests.families import small_family
from ui import bins, controls, figures
from ui.explore import view

SCRIPT = Path(__file__).parents[2] / "assets" / "plan.js"
CASES = 12  # of each way to prune, on each family
MEASURES = ("entries", "l1", "l2")
RUN = """(asked) => asked.map(({ packed, laws, cases }) => {
  const { decode, settings, plan, share, totals, MEASURES } = amalgamPlan, family = decode(packed);
  return cases.map((values) => {
    family.offsets = values.offsets;
    const planned = plan(family, settings(values, laws));
    const kept = (measure, expert) => family.numel.map((_, cell) =>
      share(family, planned, null, measure, { expert, cells: [cell] }));
    return {
      totals: totals(family, planned),
      kept: MEASURES.map((measure) => family.cell.map((_, expert) => kept(measure, expert))),
    };
  });
})"""


def sketched(kind: str, parent: Path) -> FamilySketch:
    """Of the built-in family, or of a small one with three experts."""
    if kind == "built-in":
        names = ["demo:base", *(f"demo:{name}" for name in demo.DOMAINS)]
        models = [open_checkpoint(resolve(name), name) for name in names]
        return scan(open_family(models[0], models[1:]))
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    sizes = {"layers": 2, "hidden": 96, "kv": 48, "inner": 160, "vocab": 200, "dtype": dtype}
    small_family(parent / kind, experts=3, **sizes)
    names = ["base", "expert0", "expert1", "expert2"]
    models = [open_checkpoint(parent / kind / name, name) for name in names]
    return scan(open_family(models[0], models[1:]))


def random_values(random: np.random.Generator, prune: str, experts: int) -> dict[str, Any]:
    """Values of every control that the planners read; the ends come up often."""
    rate = random.choice([0.0, 0.99, *np.round(random.uniform(0, 0.99, 4), 2)])
    values: dict[str, Any] = {
        "base": "base", "experts": [f"expert{i}" for i in range(experts)], "prune": prune,
        "consensus": "sum", "lambda": 1.0, "rate": float(rate),
        "partitions": int(random.integers(1, controls.MAX_PARTITIONS + 1)),
    }  # fmt: skip
    for k in range(controls.MAX_PARTITIONS):
        values[f"amplification.{k}"] = float(random.choice([0.0, 1.0, 1.7, 4.0]))
    for i in range(controls.MAX_EXPERTS):
        values[f"weight.{i}"] = float(random.choice([0.0, 1.0, -0.5, 0.3]))
    for axis in PRUNERS.values():
        for knob in controls.extra(axis):
            values[f"{axis.id}.{knob.name}"] = _drawn(random, knob)
    return values


def _drawn(random: np.random.Generator, knob: Any) -> Any:
    if isinstance(knob.default, bool):
        return bool(random.integers(2))
    if knob.choices:
        return str(random.choice(knob.choices))
    if knob.step is None or knob.step >= 0.5 or knob.low is None or knob.high is None:
        return knob.default  # seeds do not matter; at other outliers densities are estimates
    return float(np.round(random.uniform(knob.low, knob.high), 2))


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    page.add_script_tag(content=SCRIPT.read_text())
    yield page
    page.close()


def test_the_browser_plans_what_the_engine_plans(page, tmp_path) -> None:
    random = np.random.default_rng(20)
    made = {kind: sketched(kind, tmp_path) for kind in ("float32", "bfloat16", "built-in")}
    asked, planned = [], []
    for sketch in made.values():
        table, cases = bins.cells(sketch.tensors), []
        for prune in PRUNERS:
            for _ in range(1 if prune == "none" else CASES):
                values = random_values(random, prune, len(sketch.experts))
                recipe = controls.to_recipe(values)
                offsets = view.moves(sketch, recipe)
                values["offsets"] = bins.pooled_offsets(sketch, table, offsets)
                cases.append(values)
                planned.append((plan(recipe, sketch), sketch, table, values))
        packed = bins.pack(sketch, table, np.zeros(sketch.zeros.shape))
        asked.append({"packed": packed, "laws": view.laws(), "cases": cases})
    found = [one for family in page.evaluate(RUN, asked) for one in family]
    assert len(found) == len(planned) > 100
    for browser, (engine, sketch, table, values) in zip(found, planned, strict=True):
        for measure in (*MEASURES, "amplified"):
            told, most = engine.summary[measure], 0.02 if measure == "amplified" else 0.006
            off = abs(browser["totals"][measure] - told)
            assert off < most * max(told, 1.0), (measure, values)
        exact = figures.exact(engine, sketch, table)
        for measure, kept in zip(MEASURES, browser["kept"], strict=True):
            off = np.abs(np.array(kept) - np.array(exact[measure]))[:, table.row >= 0]
            assert off.max() < 0.04, (measure, values)  # the smallest cells have 4,608 entries
