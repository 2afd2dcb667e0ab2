"""What stands beside a record: drift, scores and a note; and drift read from the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging.run.notes import Notes, read_notes, titled, write_notes
from merging.run.provenance import moved, provenance


def test_notes_read_as_written(tmp_path: Path) -> None:
    score = {"score": 0.5, "low": 0.25, "high": 0.75, "n": 50.0}
    notes = Notes(titled({0: 0.125, "decoder 3": 0.5, None: 0.0}), {"add": score}, "good")
    write_notes(tmp_path, notes)
    (file,) = tmp_path.iterdir()
    assert read_notes(file) == notes
    assert notes.drift == {"0": 0.125, "decoder 3": 0.5, "rest": 0.0}


def test_what_is_no_note_is_none(tmp_path: Path) -> None:
    file = tmp_path / "x"
    assert read_notes(file) == Notes()
    for text in ("[", "[]", '{"drift": {"0": -1, "1": "x", "2": true}, "note": []}'):
        file.write_text(text)
        assert read_notes(file) == Notes()


def test_drift_is_the_length_of_the_change_over_the_base_s(make_model, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    base = torch.zeros(2, 2)
    base[0, 0], base[1, 1] = 3.0, 4.0  # of length 5
    model = base.clone()
    model[0, 1] = 1.0
    folders = [make_model(one, {name: value}) for one, value in (("b", base), ("m", model))]
    assert moved(folders[1], folders[0])[0] == pytest.approx(0.2)


def test_a_record_that_is_not_there_is_a_problem_in_words(tmp_path: Path) -> None:
    read = provenance(tmp_path)
    assert (read.recipe, read.text) == (None, "")
    assert read.problem.startswith("amalgam.yaml")
