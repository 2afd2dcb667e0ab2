"""The list of models that people added."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch

from merging.errors import BadFile, MergeError, ModelNotFound
from merging.recipe import parse
from merging.run.preflight import open_recipe
from ui.added import FILE, MOST, Added, AddedModel
from ui.library import Library

W = {"w": torch.ones(4, 4)}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def of_hub(folder: Path, repo: str = "org/one", commit: str = COMMIT) -> AddedModel:
    return AddedModel(f"{repo}@{commit}", str(folder), repo, commit, "main", "mit")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_what_is_added_is_there_for_the_next_server(models: Path) -> None:
    first = AddedModel("/data/one", "/data/one")
    Added([models]).put(first)
    Added([models]).put(of_hub(models / "x"))
    assert Added([models]).models() == [first, of_hub(models / "x")]
    Added([models]).remove("/data/one")
    assert Added([models]).models() == [of_hub(models / "x")]
    with pytest.raises(ModelNotFound):
        Added([models]).get("/data/one")


def test_the_list_is_in_the_first_folder_that_can_be_written(models: Path, tmp_path) -> None:
    (tmp_path / "file").touch()
    added = Added([tmp_path / "none" / "yet", models])
    assert added.file == tmp_path / "none" / "yet" / FILE
    Added([models]).put(AddedModel("/a", "/a"))
    assert added.file == models / FILE, "one that is there goes before"
    with pytest.raises(MergeError, match="the list cannot be written"):
        Added([tmp_path / "file"]).put(AddedModel("/a", "/a"))


def test_files_that_were_fetched_once_stay_known_as_such(models: Path) -> None:
    added, model = Added([models]), of_hub(models)
    added.put(AddedModel(**{**vars(model), "is_fetched": True, "is_whole": False}))
    added.put(model)
    assert added.models() == [AddedModel(**{**vars(model), "is_fetched": True})]


def test_many_who_add_at_once_lose_nothing(models: Path) -> None:
    names = [f"/data/{n}" for n in range(12)]
    threads = [
        threading.Thread(target=Added([models]).put, args=(AddedModel(name, name),))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(model.id for model in Added([models]).models()) == sorted(names)


@pytest.mark.parametrize("text", ["[", "{}", '{"models": [3]}', '{"models": [{"id": 1}]}'])
def test_a_list_that_cannot_be_read_is_told_and_never_written_over(text, models: Path) -> None:
    (models / FILE).write_text(text)
    added = Added([models])
    with pytest.raises(BadFile):
        added.models()
    with pytest.raises(MergeError):
        added.put(AddedModel("/a", "/a"))
    assert (models / FILE).read_text() == text
    assert [name for name, _ in Library([models], added=added).left_out()] == ["what was added"]


def test_there_is_an_end_to_it(models: Path) -> None:
    entries = [vars(AddedModel(f"/{n}", f"/{n}")) for n in range(MOST)]
    (models / FILE).write_text(json.dumps({"models": entries}))
    with pytest.raises(MergeError, match="remove one"):
        Added([models]).put(AddedModel("/a", "/a"))
    Added([models]).put(AddedModel("/1", "/1", licence="mit"))


def test_models_that_were_added_are_on_offer_beside_the_others(make_model, models: Path) -> None:
    base, one = make_model("models/base", W), make_model("one", W)
    added = Added([models])
    added.put(AddedModel(str(one), str(one)))
    library = Library([models], added=added)
    assert library.get(str(one)).label == "one"
    recipe = parse(f"merge_method: linear\nbase_model: models/base\nmodels:\n- model: {one}\n")
    opened = open_recipe(library.resolved(recipe))
    assert [opened.base.folder, opened.experts[0].folder] == [base, one]
    assert Library([models]).has(str(one)) is False, "only where the owner allows it"


def test_a_model_of_the_hub_is_called_by_its_commit(make_model, models: Path) -> None:
    snapshot, other = make_model("a" * 40, W), make_model("b" * 40, W)
    added = Added([models])
    added.put(of_hub(snapshot))
    library = Library([models], added=added)
    model = library.get(f"org/one@{COMMIT}")
    assert (model.kind, model.label, model.folder) == ("hub", "one", snapshot)
    recipe = parse(f"merge_method: linear\nmodels:\n- model: org/one@{COMMIT}\n")
    assert open_recipe(library.resolved(recipe)).experts[0].folder == snapshot
    added.put(of_hub(other, commit="f" * 40))
    library.refresh()
    labels = [model.label for model in library.models() if model.kind == "hub"]
    assert labels == ["one@0123456", "one@fffffff"]


def test_what_is_not_whole_or_is_gone_is_not_on_offer(make_model, models: Path) -> None:
    half, gone = make_model("half", W), models / "gone"
    added = Added([models])
    added.put(AddedModel(**{**vars(of_hub(half)), "is_whole": False}))
    added.put(AddedModel(str(gone), str(gone)))
    library = Library([models], added=added)
    assert all(model.kind == "demo" for model in library.models())
    assert library.left_out() == [("gone", "its files are gone")]


def test_a_folder_is_on_offer_once(make_model, models: Path) -> None:
    inside = make_model("models/one", W)
    added = Added([models])
    added.put(AddedModel(str(inside), str(inside)))
    ids = [model.id for model in Library([models], added=added).models()]
    assert "models/one" in ids and str(inside) not in ids
