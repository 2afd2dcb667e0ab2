"""One tensor's page, with numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from merging.errors import RecipeError
from merging.recipe import parse
from merging.sketches.sketch import N_BINS, N_FINE, bin_edges, fine_edges
from tests.ui.sketches import sketch as made_up
from ui.explore import tensor

NAME = "model.layers.1.q.weight"
RECIPE = """
merge_method: ties
base_model: base
models:
- {model: one, parameters: {weight: 0.5, density: 0.25}}
"""


@pytest.fixture(scope="module")
def sketch():
    """One expert; each tensor has the changes 0 (four times), 1, 2, 2 and 4."""
    family = made_up(experts=1, layers=2, modules=("q", "k"), entries=8)
    values = np.array([1.0, 2.0, 2.0, 4.0])
    at = np.searchsorted(bin_edges(), values, side="right") - 1
    near = np.searchsorted(fine_edges(), values, side="right") - 1
    ones = np.ones((1, len(family.tensors)))
    fine = np.bincount(near, minlength=N_BINS * N_FINE).reshape(N_BINS, N_FINE).astype(np.int32)
    fine = np.broadcast_to(fine, (*ones.shape, *fine.shape))
    return replace(
        family,
        counts=np.broadcast_to(np.bincount(at, minlength=N_BINS), (*ones.shape, N_BINS)),
        l1=np.broadcast_to(np.bincount(at, values, N_BINS), (*ones.shape, N_BINS)),
        l2=np.broadcast_to(np.bincount(at, values**2, N_BINS), (*ones.shape, N_BINS)),
        fine=fine,
        ties=fine,
        zeros=(4 * ones).astype(np.int64),
        max_abs=4 * ones,
    )


def page(sketch, text: str = RECIPE, cell: tuple = (1, "q")) -> dict:
    header = {NAME: SimpleNamespace(shape=(2, 4), dtype="BF16")}
    return tensor.facts(parse(text), sketch, cell, ["One"], [header, header])


def test_its_numbers_and_its_line_in_the_plan(sketch) -> None:
    shown = page(sketch)
    (one,) = shown["tensors"]
    rows = {label: text.replace("\u202f", " ") for label, text in one["rows"]}
    assert shown["title"] == "Layer 1, q"
    assert one["name"] == NAME
    assert one["words"].startswith("2 \N{MULTIPLICATION SIGN} 4, BF16, 8 entries; ")
    assert rows["Unchanged"] == "50 %"
    assert rows["Mean |change|"] == "1.12"  # 9 / 8
    assert (rows["Largest |change|"], rows["L1 norm"], rows["L2 norm"]) == ("4", "9", "5")
    assert (rows["Weight"], rows["Density asked"], rows["Factors"]) == ("0.5", "25 %", "1")
    assert rows["Entries kept"] == "25 %"  # 4 and one of the 2s
    assert rows["Energy kept"] == "80 %"  # (16 + 4) / 25
    assert rows["Cut at |change|"] == "2"


def test_a_value_can_be_set_for_the_layer_the_module_or_the_tensor(sketch) -> None:
    shown = page(sketch)
    assert [part for part, _ in shown["scopes"]] == ["model.layers.1.", "q", NAME]
    assert {"density", "weight"} <= {knob["name"] for knob in shown["knobs"]}
    assert shown["rules"] == []


def test_a_rule_that_holds_here_is_listed_and_followed(sketch) -> None:
    text = RECIPE.replace("0.25", "[{filter: layers.1., value: 1.0}, {value: 0.25}]")
    shown = page(sketch, text)
    rows = dict(shown["tensors"][0]["rows"])
    assert rows["Density asked"].replace("\u202f", " ") == "100 %"
    assert [(rule["name"], rule["value"]) for rule in shown["rules"]] == [("One", 1.0)]
    assert page(sketch, text, (0, "q"))["rules"] == []


def test_a_cell_that_is_not_there_is_refused(sketch) -> None:
    with pytest.raises(RecipeError, match="no mlp in layer 1"):
        page(sketch, cell=(1, "mlp"))


def test_what_holds_for_all_experts_is_one_line() -> None:
    def rule(model: str, value: float) -> dict:
        return {"knob": "weight", "label": "Weight", "model": model, "filter": "q", "value": value}

    called = {"a": "A", "b": "B"}
    both = tensor._grouped([rule("a", 1.0), rule("b", 1.0), rule("a", 1.0)], called)
    assert [(line["model"], line["name"]) for line in both] == [("*", "all experts")]
    apart = tensor._grouped([rule("a", 1.0), rule("b", 2.0)], called)
    assert [(line["name"], line["value"]) for line in apart] == [("A", 1.0), ("B", 2.0)]
