"""The history on the disk: what is listed, changed, refused, deleted and taken back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from merging.errors import MergeError
from merging.run.merge import merge
from merging.run.notes import NOTES_FILE
from ui.history import view
from ui.history.bookmarks import FOLDER
from ui.history.shelf import Shelf
from ui.history.tab import HistoryTab
from ui.history.trash import KEPT_S, empty_trash
from ui.history.usage import Usage
from ui.jobs import Job, Jobs
from ui.library import Library
from ui.live.pages import LivePages
from ui.merge import texts
from ui.store import ModelStore

RECIPE = "merge_method: ties\nbase_model: models/base\nmodels:\n- model: models/one\n"


class Sent:
    """What a button of the page sends."""

    def __init__(self, **data: object) -> None:
        self._data = data


@pytest.fixture
def models(make_model, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    (tmp_path / "models").mkdir()
    for name in ("base", "one"):
        make_model(f"models/{name}", {"model.layers.0.mlp.up_proj.weight": torch.randn(8, 8)})
    library = Library([tmp_path / "models"])
    merge(texts.resolved(library, RECIPE), tmp_path / "models" / "made")
    return tmp_path / "models"


@pytest.fixture
def shelf(models: Path) -> Shelf:
    return Shelf(Library([models]))


@pytest.fixture
def tab(shelf: Shelf) -> HistoryTab:
    return HistoryTab(shelf.library, shelf, ModelStore(1 << 30), lambda *_: None, lambda *_: {})


def test_a_merge_is_listed_with_its_recipe_and_fingerprint(shelf: Shelf) -> None:
    (entry,) = shelf.entries()
    assert (entry.id, entry.name, entry.problem) == ("model:models/made", "made", "")
    assert entry.model == "models/made" and entry.fingerprint.startswith("sha256:")
    assert "changes of one" in view.entry(shelf.library, entry)


def test_bookmarks_survive_and_never_share_a_name(shelf: Shelf, models: Path) -> None:
    score = {"add": {"score": 0.9, "low": 0.8, "high": 0.95, "n": 50.0}}
    assert shelf.bookmark(RECIPE, "ties", score) == "ties"
    assert shelf.bookmark(RECIPE, "ties") == "ties-2"
    again = Shelf(Library([models])).entry("bookmark:models/ties")
    assert (again.text, again.notes.scores) == (RECIPE, score)
    assert "90" in view.entry(shelf.library, again)


@pytest.mark.parametrize("kind", ["model", "bookmark"])
def test_what_is_renamed_deleted_and_taken_back_keeps_its_note(shelf: Shelf, kind: str) -> None:
    shelf.bookmark(RECIPE, "made")
    first = f"{kind}:models/made"
    shelf.note(first, " <b>best</b> \n")
    shelf.rename(first, "better")
    renamed = f"{kind}:models/better"
    assert "&lt;b&gt;best&lt;/b&gt;" in view.entry(shelf.library, shelf.entry(renamed))
    shelf.delete(renamed)
    (gone,) = shelf.deleted()
    assert gone.name == "better" and gone.size > 0
    assert renamed not in [entry.id for entry in shelf.entries()]
    assert not shelf.library.has("models/better")
    shelf.take_back(gone.id)
    assert shelf.entry(renamed).notes.text == "<b>best</b>"
    assert not shelf.deleted()


def test_taken_and_wrong_names_are_refused(shelf: Shelf, models: Path) -> None:
    for name, reason in (("base", "is taken"), ("../up", "letters, digits"), ("", "name")):
        with pytest.raises(MergeError, match=reason):
            shelf.rename("model:models/made", name)
    assert (models / "made").is_dir() and (models / "base").is_dir()


def test_a_deletion_whose_name_is_taken_by_now_stays_in_the_trash(shelf, models: Path) -> None:
    shelf.delete("model:models/made")
    (models / "made").mkdir()
    with pytest.raises(MergeError, match="made is taken by now"):
        shelf.take_back(shelf.deleted()[0].id)
    assert len(shelf.deleted()) == 1


def test_pages_reach_what_is_listed_and_nothing_else(shelf: Shelf, models: Path) -> None:
    for wrong in ("model:models/../models/made", "model:models/base", "made", None, 5, ["x"]):
        with pytest.raises(MergeError, match="not there any more"):
            shelf.delete(wrong)
    assert (models / "base").is_dir()


def test_the_trash_is_emptied_after_a_day(shelf: Shelf, models: Path) -> None:
    shelf.delete("model:models/made")
    (gone,) = shelf.deleted()
    (models / ".trash" / "of-somebody").mkdir()
    empty_trash([models], gone.deleted_s + KEPT_S - 1)
    assert len(shelf.deleted()) == 1
    empty_trash([models], gone.deleted_s + KEPT_S + 1)
    assert not shelf.deleted()
    assert (models / ".trash" / "of-somebody").is_dir()


def test_broken_records_and_bookmarks_say_what_is_wrong(shelf: Shelf, models: Path) -> None:
    (models / "made" / "amalgam.yaml").write_text("merge_method: tis\n")
    (models / FOLDER).mkdir()
    (models / FOLDER / "bad.json").write_text("{")
    (models / FOLDER / "odd.json").write_text('{"recipe": 5}')
    (models / "made" / NOTES_FILE).write_text('{"drift": {"0": "x"}, "scores": [], "note": 3}')
    shown = {entry.name: entry for entry in shelf.entries()}
    assert "tis" in shown["made"].problem and shown["made"].model
    assert "bad.json" in shown["bad"].problem
    assert shown["odd"].problem == "odd.json holds no recipe"
    for entry in shown.values():
        assert "disabled" in view.entry(shelf.library, entry)
        assert str(models) not in entry.problem


def test_a_model_that_a_merge_reads_stays(shelf: Shelf, models: Path) -> None:
    library, jobs = shelf.library, Jobs()
    recipe = texts.resolved(library, RECIPE.replace("models/one", "models/made"))
    usage = Usage(jobs, LivePages(1 << 30, "cpu"))
    busy = Shelf(library, usage.of)

    class Details:
        def __init__(self) -> None:
            self.recipe = recipe

    def wait(job: Job) -> None:
        job.cancel.wait(20)

    job = jobs.submit(str(models / "next"), "next", wait, Details())
    for change in (busy.delete, lambda one: busy.rename(one, "other")):
        with pytest.raises(MergeError, match="made is in use: next is being merged"):
            change("model:models/made")
    jobs.stop(job.id)
    jobs.close()
    busy.delete("model:models/made")


def test_a_loaded_model_is_renamed_when_that_is_asked_twice(tab: HistoryTab) -> None:
    model = tab.library.get("models/made")
    tab.store._loaded[(model.id, ())] = None  # type: ignore[assignment]
    sent = Sent(id="model:models/made", text="other")
    said, _, warned = tab.renamed("", sent)  # type: ignore[arg-type]
    assert "is loaded for Chat" in said and warned == "model:models/made"
    said, _, warned = tab.renamed(warned, sent)  # type: ignore[arg-type]
    assert said == "made is called other now." and warned == ""
    assert not tab.store.is_loaded("models/made")


def test_two_are_compared_however_they_name_their_models(tab: HistoryTab) -> None:
    tab.shelf.bookmark(RECIPE, "same")
    tab.shelf.bookmark(RECIPE.replace("ties", "task_arithmetic"), "other")
    made, same, other = (
        tab.shelf.entry(one)
        for one in ("model:models/made", "bookmark:models/same", "bookmark:models/other")
    )
    alike = tab.compared(Sent(ids=[made.id, same.id]))  # type: ignore[arg-type]
    assert "They have the same recipe" in alike[1]
    apart = tab.compared(Sent(ids=[made.id, other.id]))  # type: ignore[arg-type]
    assert "instead of" in apart[1]
    gone = tab.compared(Sent(ids=[made.id, "bookmark:models/x"]))  # type: ignore[arg-type]
    assert "not there any more" in gone[3]


def test_where_nothing_can_be_written_the_buttons_are_off_and_say_why(
    shelf: Shelf, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the tests may be root
    (entry,) = shelf.entries()
    assert "cannot be written" in entry.fixed
    assert 'aria-label="Delete made" disabled' in view.entry(shelf.library, entry)
    with pytest.raises(MergeError, match="made cannot be changed"):
        shelf.delete(entry.id)
    with pytest.raises(MergeError, match="can be written"):
        shelf.bookmark(RECIPE, "ties")
