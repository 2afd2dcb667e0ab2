"""The models on offer: ids only, free names, and recipes that reach no other path."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from merging.errors import MergeError, ModelNotFound, OutputExists
from merging.recipe import Recipe, from_mapping, parse
from merging.run.preflight import open_recipe
from ui.library import BadName, Library

W = {"w": torch.ones(4, 4)}


@pytest.fixture
def family(make_model, tmp_path: Path) -> Path:
    """A models folder with base, one, two, a hidden folder and a stray file."""
    root = tmp_path / "models"
    root.mkdir()
    for name in ("base", "one", "two", ".hidden"):
        make_model(f"models/{name}", W)
    (root / "notes.txt").write_text("x")
    (root / "empty").mkdir()
    return root


@pytest.fixture
def library(family: Path) -> Library:
    return Library([family])


def ids(library: Library) -> list[str]:
    return [model.id for model in library.models() if model.kind != "demo"]


def test_lists_model_folders_and_nothing_else(library: Library) -> None:
    assert ids(library) == ["models/base", "models/one", "models/two"]
    assert library.get("models/one").folder.name == "one"


def test_built_in_family_comes_first(library: Library) -> None:
    assert library.models()[0].id == "demo:base"
    assert library.default_selection()[0] == "demo:base"


@pytest.mark.parametrize("name", ["models/../one", "/etc", "one", "", "demo:nothing", "models/"])
def test_anything_else_is_not_on_offer(library: Library, name: str) -> None:
    with pytest.raises(ModelNotFound):
        library.get(name)


def test_near_miss_names_the_right_one(library: Library) -> None:
    with pytest.raises(ModelNotFound, match="did you mean models/one"):
        library.get("models/onee")


def test_new_models_appear_on_refresh(library: Library, make_model, family: Path) -> None:
    make_model("models/three", W)
    (family / "three" / "amalgam.yaml").write_text("{}")
    library.refresh()
    assert library.get("models/three").kind == "merged"


def test_a_model_keeps_its_seat_when_others_come_and_go(
    library: Library, make_model, family: Path
) -> None:
    seats = {model: library.seat(model) for model in ids(library)}
    assert len(set(seats.values())) == 3
    make_model("models/a-new-one", W)  # before all others in the list
    (family / "base").rename(family / ".gone")
    library.refresh()
    assert library.seat("models/two") == seats["models/two"]
    assert library.seat("models/a-new-one") not in seats.values()


def test_what_does_not_fit_a_base_is_told_with_both_values(
    library: Library, make_model, family: Path
) -> None:
    make_model("models/wide", {"w": torch.ones(4, 6)})
    library.refresh()
    misfits = library.misfits("models/base")
    assert (
        misfits["models/wide"]
        == "w is 4 \N{MULTIPLICATION SIGN} 6, in the base 4 \N{MULTIPLICATION SIGN} 4"
    )
    assert "models/one" not in misfits and "demo:add" in misfits
    assert library.misfits("demo:base").keys() == {*ids(library)}


def test_two_folders_of_one_name_stay_apart(family: Path, tmp_path: Path, make_model) -> None:
    (tmp_path / "other" / "models").mkdir(parents=True)
    make_model("other/models/one", W)
    both = Library([family, tmp_path / "other" / "models"])
    assert both.get("models/one").folder != both.get("models~2/one").folder
    labels = {model.id: model.label for model in both.models()}
    assert labels["models~2/one"] == "other/models/one"
    assert labels["models/one"] == f"{tmp_path.name}/models/one"
    assert labels["models/two"] == "two"
    assert (labels["demo:base"], labels["models/base"]) == ("demo:base", "models/base")


def test_missing_folder_is_no_error_and_takes_results(tmp_path: Path) -> None:
    library = Library([tmp_path / "later" / "models"])
    assert ids(library) == []
    assert library.new_folder("first") == tmp_path / "later" / "models" / "first"


@pytest.mark.parametrize(
    "name", ["", " ", "../up", "a/b", "a\\b", ".dot", "-dash", "end.", "x" * 65, "a\nb", "café"]
)
def test_bad_names_are_refused(library: Library, name: str) -> None:
    with pytest.raises(BadName):
        library.new_folder(name)


def test_taken_names_suggest_a_free_one(library: Library, family: Path) -> None:
    (family / "one-2").mkdir()
    with pytest.raises(OutputExists, match="one is taken; one-3 is free"):
        library.new_folder("one")


def test_free_names_count_on(library: Library) -> None:
    root = library.get("models/base").folder.parent
    for taken in ("dppa", "run-7", "v-0"):
        (root / taken).mkdir()
    (root / "dppa-2").symlink_to("absent")
    wishes = ("new", "dppa", "dppa-2", "run-7", "v-0")
    assert [library.free_name(wish) for wish in wishes] == [
        "new",
        "dppa-3",
        "dppa-3",
        "run-8",
        "v-0-2",
    ]


def test_free_name_is_always_valid(library: Library) -> None:
    for wish in ("a b/c", "...", "x" * 100, "-"):
        assert library.new_folder(library.free_name(wish))


def recipe(base: str, *experts: str):
    models = "\n".join(f"- model: {name}" for name in experts)
    return parse(f"merge_method: task_arithmetic\nbase_model: {base}\nmodels:\n{models}\n")


def test_resolved_recipe_opens_from_anywhere(library: Library, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir("/")
    resolved = library.resolved(recipe("models/base", "models/one"))
    assert open_recipe(resolved).experts[0].name == "models/one"
    assert resolved.sources[0].model == "models/one"


def test_every_model_of_a_stack_must_be_on_offer(library: Library, tmp_path) -> None:
    def stack(model: str) -> Recipe:
        slices = [
            {"sources": [{"model": name, "layer_range": [0, 1]}]} for name in ("models/one", model)
        ]
        return from_mapping({"merge_method": "linear", "slices": slices})

    resolved = library.resolved(stack("models/two"))
    assert resolved.blueprint is not None
    assert resolved.blueprint.models == ("models/one", "models/two")
    with pytest.raises(MergeError, match="not one of the models on offer"):
        library.resolved(stack(str(tmp_path)))


def test_resolved_recipe_over_two_folders(family: Path, tmp_path: Path, make_model) -> None:
    (tmp_path / "more").mkdir()
    make_model("more/extra", W)
    (tmp_path / "other" / "models").mkdir(parents=True)
    make_model("other/models/one", W)
    library = Library([family, tmp_path / "more", tmp_path / "other" / "models"])
    names = ("models/one", "more/extra", "models~2/one")
    opened = open_recipe(library.resolved(recipe("models/base", *names)))
    assert [expert.folder for expert in opened.experts] == [library.get(n).folder for n in names]


def test_folder_of_a_model_on_offer_is_taken_for_its_id(library: Library) -> None:
    written = recipe(str(library.get("models/base").folder), str(library.get("models/one").folder))
    assert library.resolved(written).base == "models/base"


@pytest.mark.parametrize("name", ["/etc", "org/name", "./one", "models/../models/one"])
def test_recipes_reach_nothing_else(library: Library, name: str) -> None:
    with pytest.raises(MergeError, match="not one of the models on offer"):
        library.resolved(recipe("models/base", name))


def test_default_selection_without_the_built_in_family(library: Library, monkeypatch) -> None:
    monkeypatch.setattr("ui.library._built_in", list)
    library.refresh()
    assert library.default_selection() == ("models/base", ["models/one", "models/two"])


def test_nothing_on_offer_selects_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("ui.library._built_in", list)
    assert Library([tmp_path / "none"]).default_selection() == ("", [])


def test_sketch_is_kept_until_a_file_changes(library: Library, monkeypatch) -> None:
    import merging.sketches.scan

    calls = []
    real = merging.sketches.scan.scan
    monkeypatch.setattr(
        merging.sketches.scan, "scan", lambda *args, **kw: calls.append(1) or real(*args, **kw)
    )
    first = library.sketch("models/base", ["models/one"])
    assert library.sketch("models/base", ["models/one"]) is first
    assert first.base == "models/base"
    assert first.experts == ("models/one",)
    weights = library.get("models/one").folder / "model.safetensors"
    import os

    os.utime(weights, (1, 1))
    library.sketch("models/base", ["models/one"])
    assert len(calls) == 2


def test_sketches_in_memory_are_the_latest_and_what_fits_beside_it(
    library: Library, monkeypatch
) -> None:
    experts = [f"demo:{name}" for name in ("add", "reverse", "spanish", "sort")]
    one = library.sketch("demo:base", experts[:1])
    monkeypatch.setattr("ui.library.SKETCH_BYTES", 2 * one.size_bytes)
    sketches = [one, *(library.sketch("demo:base", [name]) for name in experts[1:])]
    assert library.sketch("demo:base", experts[3:]) is sketches[3]
    assert library.sketch("demo:base", experts[1:2]) is sketches[1]
    assert library.sketch("demo:base", experts[:1]) is not sketches[0], "the first one had to go"
    assert library.sketch("demo:base", experts[2:3]) is not sketches[2], "used before the others"
    monkeypatch.setattr("ui.library.SKETCH_BYTES", 0)
    all_four = library.sketch("demo:base", experts)
    assert all_four.size_bytes > 3 * one.size_bytes
    assert library.sketch("demo:base", experts) is all_four, "the latest one always stays"


def test_models_are_values(library: Library) -> None:
    model = library.get("models/one")
    assert replace(model, label="x") != model


def test_two_who_ask_for_one_family_share_a_scan(library: Library, monkeypatch) -> None:
    import threading

    from merging.sketches import scan as scans

    started, go, scans_run = threading.Event(), threading.Event(), []
    real = scans.scan

    def slow(*arguments, **options):
        scans_run.append(1)
        started.set()
        assert go.wait(30)
        return real(*arguments, **options)

    monkeypatch.setattr(scans, "scan", slow)
    sketches = []
    ask = lambda: sketches.append(library.sketch("demo:base", ["demo:add"]))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert started.wait(30)
    go.set()
    for thread in threads:
        thread.join(30)
    assert sketches[0] is sketches[1]
    assert len(scans_run) == 1


def test_a_first_look_is_taken_only_where_a_scan_would_be_waited_for(
    tmp_path: Path, monkeypatch
) -> None:
    from merging.engines.fused import sizes
    from merging.sketches import preview

    library = Library([tmp_path], tmp_path / "cache")
    monkeypatch.setattr(sizes, "WORTH_BUILDING", 0)
    assert library.preview("demo:base", ["demo:add"]) is None, "the scan is quick"
    monkeypatch.setattr(preview, "WORTH", 0)
    look = library.preview("demo:base", ["demo:add"])
    assert look is not None
    assert (look.exact, look.base, look.experts) == (False, "demo:base", ("demo:add",))
    library.sketch("demo:base", ["demo:add"])
    assert library.preview("demo:base", ["demo:add"]) is None, "known"
    again = Library([tmp_path], tmp_path / "cache")
    assert again.preview("demo:base", ["demo:add"]) is None, "on the disk"


def test_a_cancelled_scan_is_not_kept(library: Library) -> None:
    import threading

    cancel = threading.Event()
    cancel.set()
    with pytest.raises(MergeError):
        library.sketch("demo:base", ["demo:add"], cancel=cancel)
    assert library.sketch("demo:base", ["demo:add"]).experts


def put_bad_folders(family: Path) -> None:
    """Folders of every kind that cannot be a model on offer."""
    configs = {"list": "[]", "deep": "[" * 100_000, "torn": "{", "half": '{"a": "\\ud800"}'}
    for name in [*configs, "fifo", "none", "dangling", "line\nbreak", "pickle"]:
        folder = family / name
        folder.mkdir()
        (folder / "amalgam.yaml").write_text("[" * 100)
        (folder / "model.safetensors").touch()
        if name not in ("fifo", "none", "dangling"):
            (folder / "config.json").write_text(configs.get(name, "{}"))
    os.mkfifo(family / "fifo" / "config.json")
    (family / "dangling" / "config.json").symlink_to("absent")
    (family / "pickle" / "model.safetensors").rename(family / "pickle" / "model.bin")
    (family / "loop").symlink_to("loop")
    (family / "absent").symlink_to("nowhere")
    (family / "device").symlink_to("/dev/zero")
    odd = os.fsencode(family) + b"/odd-\xff"
    os.mkdir(odd)
    for file in (b"config.json", b"model.safetensors"):
        with open(odd + b"/" + file, "w") as handle:
            handle.write("{}")


def test_no_folder_stops_the_list_and_each_has_its_reason(family: Path) -> None:
    put_bad_folders(family)
    library = Library([family])
    assert ids(library) == ["models/base", "models/one", "models/two"]
    reasons = dict(library.left_out())
    assert reasons == {
        "dangling": "config.json: no such file or directory",
        "deep": "config.json: is nested deeper than 64 levels",
        "fifo": "config.json: is a FIFO, not a file",
        "half": "config.json: holds half of a character (a lone surrogate)",
        "'line\\nbreak'": "its name holds characters that cannot be shown",
        "list": "config.json: is not a JSON object",
        "none": "no config.json",
        "'odd-\\udcff'": "its name holds characters that cannot be shown",
        "pickle": "pickle weights; save it as safetensors",
        "torn": reasons["torn"],
    }
    assert reasons["torn"].startswith("config.json: is not JSON (")


def test_a_container_is_not_on_offer_as_a_model(family: Path, library: Library) -> None:
    (family / "one" / "container.json").write_text("{}")
    library.refresh()
    assert ids(library) == ["models/base", "models/two"]


def test_a_bad_folder_is_on_offer_once_it_is_mended(family: Path, library: Library) -> None:
    (family / "one" / "config.json").write_text("[]")
    library.refresh()
    assert ids(library) == ["models/base", "models/two"]
    (family / "one" / "config.json").write_text("{}")
    library.refresh()
    assert ids(library) == ["models/base", "models/one", "models/two"]
    assert library.left_out() == []


def test_a_folder_that_may_not_be_opened_is_named(family: Path, monkeypatch) -> None:
    real = os.listdir

    def listdir(path):
        if Path(path).name in ("one", "closed"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    (family.parent / "closed").mkdir()
    library = Library([family, family.parent / "closed"])
    assert ids(library) == ["models/base", "models/two"]
    assert library.left_out() == [
        ("one", "it cannot be opened (permission denied)"),
        ("closed", "it cannot be listed (permission denied)"),
    ]


def test_more_folders_than_are_looked_at(family: Path, monkeypatch) -> None:
    monkeypatch.setattr("ui.library.MOST_FOLDERS", 4)
    library = Library([family])
    assert ids(library) == ["models/base", "models/one"]
    reason = "only the first 4 of the 5 names in it are looked at"
    assert library.left_out() == [("models", reason)]


def test_more_models_than_a_list_shows(make_model, family: Path, monkeypatch) -> None:
    monkeypatch.setattr("ui.library.MOST_MODELS", 2 + len(Library([family])._models) - 3)
    monkeypatch.setattr("ui.library._MOST_REASONS", 1)
    make_model("models/zero", W)
    library = Library([family])
    assert ids(library) == ["models/base", "models/one"]
    assert [name for name, _ in library.left_out()] == ["two", "1 more folder"]


def test_a_models_folder_that_is_a_link_to_itself_is_empty(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    library = Library([tmp_path / "loop"])
    assert ids(library) == []
    assert library.left_out() == [
        ("loop", "it cannot be listed (too many levels of symbolic links)")
    ]


def test_references_that_are_no_path_are_not_on_offer(library: Library) -> None:
    for name in ("/a\0b", "/" + "x" * 5000, "/\udcff"):
        with pytest.raises(ModelNotFound):
            library.resolved(replace(recipe("models/base", "models/one"), base=name))
