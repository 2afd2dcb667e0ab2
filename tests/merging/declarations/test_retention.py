"""Asked for and kept, by hand; and counted in real merges against the tensors they write."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merging.declarations.retention import NOTHING, Retention, difference, total
from merging.recipe import from_mapping
from merging.run.merge import merge
from tests.families import document as recipe_of
from tests.families import write_family

PART = Retention(1000, 200.0, 190.0, 180, 150, 140, 100)


def test_causes_by_hand() -> None:
    assert (PART.share_asked, PART.share) == (0.2, 0.1)
    assert PART.causes == pytest.approx(
        {
            "shift": -0.01,
            "rounding": -0.01,
            "ties": -0.03,
            "unchanged": -0.01,
            "amplification": -0.04,
        }
    )
    assert sum(PART.causes.values()) == pytest.approx(PART.share - PART.share_asked)


def test_sums_are_per_expert() -> None:
    first, second = total([[PART, NOTHING], [], [PART, PART]])
    assert (first.entries, first.survivors, second.survivors) == (2000, 200, 100)
    assert total([]) == []


def test_the_line_names_the_causes_largest_first() -> None:
    line = difference("expert", PART)
    assert line is not None
    assert line.startswith("expert: asked for 20 % of its entries, kept 10 %: partitions with")
    assert line.index("(-4.0 points)") < line.index("equal changes at the cut are dropped (-3.0")
    alone = Retention(1000, 200.0, 200.0, 200, 146, 146, 146)
    assert difference("e", alone) == (
        "e: asked for 20 % of its entries, kept 14.6 %: equal changes at the cut are dropped"
    )
    assert difference("e", Retention(10_000, 2000.4, 2000.4, 2000, 2000, 2000, 2000)) is None
    assert difference("e", NOTHING) is None


def few_values(seed: int) -> dict[str, torch.Tensor]:
    """Changes of two magnitudes, and a third of the entries unchanged."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(0, 3, (2, 40, 50), generator=generator)
    names = [f"model.layers.{k}.mlp.up_proj.weight" for k in range(2)]
    return {name: step * 0.25 for name, step in zip(names, steps, strict=True)}


@pytest.mark.parametrize(
    ("method", "parameters", "cause"),
    [
        ("dppa", {"density": 0.2, "tie_rule": "drop"}, "ties"),
        ("dppa", {"density": 0.9}, "unchanged"),
        ("dppa", {"density": 0.3, "amplification": [0.0, 1.0]}, "amplification"),
        ("magnitude", {"density": 0.9}, "unchanged"),
        ("ties", {"density": 0.9, "scope": "model"}, "unchanged"),
        ("dppa", {"density": 0.3}, None),
        ("magnitude", {"density": 0.25}, None),
        ("magnitude", {"density": 1.0}, None),
    ],
)
def test_a_merge_tells_what_it_kept(method, parameters, cause, tmp_path: Path) -> None:
    norm = {"model.norm.weight": torch.zeros(50)} if method == "dppa" else {}  # is not pruned
    base = {name: torch.zeros(40, 50) for name in few_values(0)} | norm
    parent = write_family(tmp_path, base, [few_values(1) | norm])
    recipe = from_mapping(recipe_of(method, 1, parameters), parent)
    result = merge(recipe, tmp_path / "out", device="cpu")
    written = load_file(tmp_path / "out" / "model.safetensors")
    retention = result.retention["expert0"]
    changed = sum(int((tensor != 0).sum()) for tensor in written.values())
    notes = [note for note in result.notes if "asked for" in note]
    if cause is None:
        assert not notes
        assert retention.share == pytest.approx(parameters["density"], abs=5e-4)
        if parameters["density"] < 1:
            assert retention.survivors == changed
    else:
        assert retention.survivors == changed
        causes = retention.causes
        assert min(causes, key=lambda name: causes[name]) == cause
        assert len(notes) == 1 and f"kept {100 * changed / 4000:.3g} %" in notes[0]


def test_a_merge_taken_up_again_tells_of_all_tensors(tmp_path: Path) -> None:
    from merging.run.journal import Journal, Written

    (tmp_path / "new").mkdir()
    Journal(tmp_path / "new", "key").note("w", Written(1.0, 2.0, 3, (PART, NOTHING)))
    entry = Journal(tmp_path / "new", "key").finished["w"]
    assert entry == Written(1.0, 2.0, 3, (PART, NOTHING))
