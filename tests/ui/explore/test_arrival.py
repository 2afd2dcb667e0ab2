"""How far the merge moves, in the finding's second line: held to the sketch's exact sums."""

from __future__ import annotations

import re

import numpy as np
import pytest

from merging import recipe as recipes
from merging.checkpoints import open_checkpoint, open_family, resolve
from merging.recipe import Recipe
from merging.sketches.scan import scan
from merging.sketches.sketch import FamilySketch
from ui import findings
from ui.explore import arrival

NAMES = ("demo:base", "demo:add", "demo:sort")


@pytest.fixture(scope="module")
def sketch() -> FamilySketch:
    models = [open_checkpoint(resolve(name), name) for name in NAMES]
    return scan(open_family(models[0], models[1:]))


def recipe(method: str, **parameters: object) -> Recipe:
    own = {"weight": parameters.pop("weight", 1.0)}
    models = [(name, own) for name in NAMES[1:]]
    return recipes.build(method=method, base=NAMES[0], models=models, parameters=parameters)


def told(sketch: FamilySketch, method: str = "task_arithmetic", **parameters: object) -> str:
    moves = arrival.foreseen(recipe(method, **parameters), sketch, {})["moves"]
    return moves.replace(findings.THIN, " ")


def share(text: str) -> tuple[float, float]:
    """How far it moves, and by how much that may be off, in percent."""
    number, off = re.search(r"by ([\d.]+) ± ([\d.]+) %", text).groups()
    return float(number), float(off)


@pytest.mark.parametrize(("strength", "weight"), [(1.0, 1.0), (0.4, 1.0), (1.0, -0.5)])
def test_it_follows_strength_and_weights(sketch, strength: float, weight: float) -> None:
    moved, off = share(told(sketch, weight=weight, **{"lambda": strength}))
    whole = np.sqrt(sketch.dots.sum() / sketch.base_l2.sum())  # of the experts' plain sum
    assert abs(moved - 100 * strength * abs(weight) * whole) <= off + 0.05  # of rounding
    assert 0 < off < 0.1 * moved


def test_the_experts_alone_stand_beside_it(sketch) -> None:
    lengths = np.sqrt(np.diag(sketch.dots.sum(axis=2)) / sketch.base_l2.sum())
    low, high = (findings.percent(end).replace(findings.THIN, " ") for end in sorted(lengths))
    span = f"{low.removesuffix(' %')}\N{EN DASH}{high}"
    assert told(sketch).endswith(f"of the base's norm (experts alone: {span}).")


def test_it_is_of_what_is_pruned(sketch) -> None:
    pruned = told(sketch, "dppa", density=0.3)
    assert pruned.startswith("Merging moves linear layers by ")
    inside = np.array([tensor.is_linear for tensor in sketch.tensors])
    energy = sketch.l2.sum(axis=2)[:, inside].sum(axis=1) / sketch.base_l2[inside].sum()
    assert findings.percent(float(np.sqrt(energy.max()))).replace(findings.THIN, " ") in pruned


def test_consensus_counts_too(sketch) -> None:
    summed, elected = (share(told(sketch, method))[0] for method in ("task_arithmetic", "ties"))
    assert elected != summed


def test_no_strength_moves_nothing_and_what_is_not_foreseen_says_so(sketch) -> None:
    assert told(sketch, **{"lambda": 0.0}) == "Merging does not move the model."
    with_nothing = arrival.foreseen(recipe("task_arithmetic", **{"lambda": 0.0}), sketch, {})
    assert with_nothing["note"].endswith("sampled entries a layer.")
    assert told(sketch, "tsv_m").startswith("How far the merge moves: not predicted: ")


def test_one_expert_is_its_expert() -> None:
    text = findings.moves("the model", 0.014, float("inf"), [0.021]).replace(findings.THIN, " ")
    assert text == (
        "Merging moves the model by about 1.4 % of the base's norm (its expert alone: 2.1 %)."
    )
