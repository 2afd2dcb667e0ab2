"""What check foresees of a family that was scanned, and what it says of one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging.recipe import from_mapping
from merging.run.preflight import check, open_recipe
from merging.sketches.scan import scan
from tests.families import document, write_family

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """One linear of 100 entries: 10 change by 1, 30 by 0.5."""
    change = torch.cat([torch.full((10,), 1.0), torch.full((30,), 0.5), torch.zeros(60)])
    return write_family(tmp_path, {NAME: torch.zeros(10, 10)}, [{NAME: change.reshape(10, 10)}])


def notes(parent: Path, sketches: Path, method: str, parameters: dict) -> list[str]:
    report = check(from_mapping(document(method, 1, parameters), parent), sketches=sketches)
    return [one.message for one in report.problems if one.severity == "note"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"density": 0.2, "tie_rule": "drop"}, "about 10 % are kept: equal"),
        ({"density": 0.8}, "about 40 % are kept: the other"),
        ({"density": 0.2}, None),
    ],
)
def test_what_will_be_kept_is_told_where_a_scan_knows(parameters, said, parent, tmp_path) -> None:
    sketches = tmp_path / "sketches"
    scan(open_recipe(from_mapping(document("dppa", 1), parent)), cache=sketches)
    lines = [line for line in notes(parent, sketches, "dppa", parameters) if "asked for" in line]
    assert [(said or "") in line for line in lines] == ([True] if said else [])


def test_without_a_scan_the_rule_itself_is_told(parent, tmp_path) -> None:
    (line,) = notes(parent, tmp_path / "none", "dppa", {"density": 0.2, "tie_rule": "drop"})
    assert line.startswith("tie_rule: drop drops every change that equals a cut")
    assert notes(parent, tmp_path / "none", "dppa", {"density": 0.2}) == []
    assert notes(parent, tmp_path / "none", "linear", {}) == []
