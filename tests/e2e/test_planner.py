"""The browser's planner held to the engine's: random knobs for every way to prune, on sketches of
real checkpoints. Both execute the laws that pruners declare.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merging import demo
from merging import recipe as recipes
from merging.checkpoints import open_checkpoint, open_family, resolve
from merging.declarations.knobs import AMPLIFICATION, DENSITY, PARTITION_MODE, SCOPE, Knob
from merging.declarations.laws import Law
from merging.declarations.methods import Pruner
from merging.declarations.schedules import Rule, Schedule
from merging.methods import PRUNERS
from merging.sketches.plan import densities_asked, plan
from merging.sketches.scan import scan
from merging.sketches.sketch import FamilySketch
from tests.families import small_family
from ui import bins, controls, figures, spelling
from ui.explore import view

ASSETS = Path(__file__).parents[2] / "assets"
CASES = 12  # of each way to prune, on each family
MEASURES = ("entries", "l1", "l2")
RUN = """(asked) => asked.map(({ packed, laws, cases }) => {
  const { decode, settings, plan, share, totals, MEASURES } = amalgamPlan, family = decode(packed);
  return cases.map((values) => {
    family.offsets = values.offsets;
    const { densities = null } = values;
    const planned = plan(family, { ...settings(values, laws), densities });
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
        "base": "base",
        "experts": [f"expert{i}" for i in range(experts)],
        "prune": prune,
        "consensus": "sum",
        "lambda": 1.0,
        "rate": float(rate),
        "partitions": int(random.integers(1, controls.MAX_PARTITIONS + 1)),
    }
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
    for script in ("pools.js", "plan.js"):
        page.add_script_tag(content=(ASSETS / script).read_text())
    yield page
    page.close()


@pytest.fixture(scope="module")
def sketches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FamilySketch]:
    parent = tmp_path_factory.mktemp("planner")
    return {kind: sketched(kind, parent) for kind in ("float32", "bfloat16", "built-in")}


def test_the_browser_plans_what_the_engine_plans(page, sketches) -> None:
    random = np.random.default_rng(20)
    cases = []
    for sketch in sketches.values():
        for prune in PRUNERS:
            for _ in range(1 if PRUNERS[prune].law.order == "all" else CASES):
                values = random_values(random, prune, len(sketch.experts))
                cases.append((sketch, spelling.to_recipe(values), values))
    assert len(cases) > 100
    hold_equal(page, cases)


def test_both_planners_execute_any_law(page, sketches, monkeypatch) -> None:
    random = np.random.default_rng(21)
    cases = []
    for number in range(24):
        pruner = random_pruner(random, f"law{number}")
        monkeypatch.setitem(PRUNERS, pruner.id, pruner)
        sketch = sketches[("float32", "bfloat16", "built-in")[number % 3]]
        for _ in range(4):
            values = random_values(random, pruner.id, len(sketch.experts))
            values |= {f"{pruner.id}.{k.name}": _drawn(random, k) for k in pruner.knobs}
            cases.append((sketch, recipe_of(pruner, values), values))
    hold_equal(page, cases)


def test_both_planners_follow_densities_that_vary_over_depth_and_by_expert(page, sketches) -> None:
    random = np.random.default_rng(23)
    cases = []
    for sketch in sketches.values():
        for prune in ("magnitude", "dynamic", "random", "breadcrumbs"):
            values = random_values(random, prune, len(sketch.experts)) | {
                f"{prune}.scope": "tensor"
            }
            recipe = spelling.to_recipe(values)
            sources = []
            for number, source in enumerate(recipe.sources):
                knots = tuple(random.uniform(0.05, 0.95, 1 + number).tolist())
                varied = {**source.values, "density": Schedule((Rule("*", knots),))}
                sources.append(replace(source, values=varied))
            recipe = replace(recipe, sources=tuple(sources))
            values["densities"] = bins.pooled_means(
                sketch, bins.cells(sketch.tensors), densities_asked(recipe, sketch)
            )
            cases.append((sketch, recipe, values))
    hold_equal(page, cases)


def test_a_rate_is_found_again_by_its_cut(page, sketches) -> None:
    """Dragging the cut moves the rate: whatever the densities of cells, it is the inverse."""
    sketch = sketches["built-in"]
    values = random_values(np.random.default_rng(22), "dynamic", len(sketch.experts))
    values |= {"partitions": 3} | {f"amplification.{k}": 1.0 for k in range(3)}
    values |= {"dynamic.density_shift": 0.1, "dynamic.tie_rule": "spread"}
    table = bins.cells(sketch.tensors)
    packed = bins.pack(sketch, table, view.moves(sketch, spelling.to_recipe(values)))
    found = page.evaluate(
        """([packed, laws, values]) => {
          const { decode, settings, plan, pooledCuts, rateAt } = amalgamPlan;
          const family = decode(packed), limit = { low: 0, high: 0.99, step: 0.01 };
          const cells = family.numel.map((_, cell) => cell).filter((c) => family.row_of[c] >= 0);
          return [0.1, 0.37, 0.7, 0.98].flatMap((rate) => [family.rows[1], cells, [cells[3]]].map(
            (over) => {
              const asked = settings({ ...values, rate }, laws);
              const cut = pooledCuts(family, plan(family, asked), 1, over)[2];
              return [rate, rateAt(family, asked, 1, over, cut * 1.0001, limit)];
            }));
        }""",
        [packed, view.laws(), values],
    )
    assert len(found) == 12
    assert all(abs(rate - again) < 0.0101 for rate, again in found), found


def random_pruner(random: np.random.Generator, name: str) -> Pruner:
    """A pruner with any law, and with the knobs that its law needs and may have."""
    order = ("largest", "largest", "random", "all")[random.integers(4)]
    linears = bool(random.integers(2))
    skips = order == "largest" and not random.integers(3)
    knobs = [] if order == "all" else [DENSITY]
    if skips:
        knobs.append(knob_of("breadcrumbs", "gamma"))
    elif order == "largest" and random.integers(4):
        knobs += [AMPLIFICATION, PARTITION_MODE][: random.integers(1, 3)]
    if order == "largest" and not linears and not random.integers(3):
        knobs.append(SCOPE)
    elif order == "largest" and linears and not random.integers(2):
        knobs += [knob_of("dynamic", f"{kind}_outlier") for kind in ("layer", "linear")]
        knobs.append(knob_of("dynamic", "density_shift"))
    if linears and random.integers(2):
        knobs.append(knob_of("dynamic", "scale_dense"))
    if order == "largest" and not random.integers(3):
        knobs.append(knob_of("dynamic", "tie_rule"))
    law = Law(order, linears, "gamma" if skips else None)
    words = {"title": name, "summary": name, "formula": name, "words": name}
    return Pruner(id=name, law=law, decide=PRUNERS["none"].decide, knobs=tuple(knobs), **words)


def knob_of(pruner: str, name: str) -> Knob:
    return next(knob for knob in PRUNERS[pruner].knobs if knob.name == name)


def recipe_of(pruner: Pruner, values: dict[str, Any]) -> recipes.Recipe:
    """What the controls would spell, if they had this pruner."""
    parameters: dict[str, Any] = {"prune": pruner.id}
    for knob in pruner.knobs:
        if knob.name not in ("density", "amplification"):
            parameters[knob.name] = values[f"{pruner.id}.{knob.name}"]
    own: dict[str, Any] = {}
    if controls.has(pruner, "density"):
        own["density"] = round(1 - values["rate"], 6)
    if controls.has(pruner, "amplification"):
        rings = range(values["partitions"])
        own["amplification"] = [values[f"amplification.{k}"] for k in rings]
    models = [
        (e, {"weight": values[f"weight.{i}"], **own}) for i, e in enumerate(values["experts"])
    ]
    return recipes.build(
        method="task_arithmetic", base="base", models=models, parameters=parameters
    )


def hold_equal(page, cases: list[tuple[FamilySketch, recipes.Recipe, dict[str, Any]]]) -> None:
    """Plans every case here and in the browser, and compares what is kept."""
    asked, tables = [], []
    for sketch, recipe, values in cases:
        table = bins.cells(sketch.tensors)
        moves = view.moves(sketch, recipe)
        values["offsets"] = bins.pooled_means(sketch, table, moves)
        packed = bins.pack(sketch, table, np.zeros(sketch.zeros.shape))
        same = asked and tables[-1][0] is sketch
        if not same:
            asked.append({"packed": packed, "laws": view.laws(), "cases": []})
        asked[-1]["cases"].append(values)
        tables.append((sketch, table))
    planned = [case for family in page.evaluate(RUN, asked) for case in family]
    assert len(planned) == len(cases)
    for browser, (sketch, recipe, values), (_, table) in zip(planned, cases, tables, strict=True):
        engine = plan(recipe, sketch)
        for measure in (*MEASURES, "amplified"):
            share, most = engine.summary[measure], 0.05 if measure == "amplified" else 0.006
            off = abs(browser["totals"][measure] - share)
            assert off < most * max(share, 1.0), (measure, PRUNERS[recipe.prune].law, values)
        exact = figures.exact(engine, sketch, table)
        for measure, shares in zip(MEASURES, browser["kept"], strict=True):
            off = np.abs(np.array(shares) - np.array(exact[measure]))[:, table.row >= 0]
            # the smallest cells have 4,608 entries
            assert off.max() < 0.05, (measure, PRUNERS[recipe.prune].law, values)
