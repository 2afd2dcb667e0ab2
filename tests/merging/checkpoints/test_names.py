"""From what a person writes to a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from merging import demo
from merging.checkpoints import resolve, short_names
from merging.checkpoints.names import distinct_names
from merging.errors import ModelNotFound


def test_a_folder_absolute_or_relative(tmp_path, monkeypatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert resolve(str(tmp_path / "a")) == tmp_path / "a"
    assert resolve("b") == tmp_path / "a" / "b"
    assert resolve("a/b", tmp_path) == tmp_path / "a" / "b"
    assert resolve("./b") == tmp_path / "a" / "b"


def test_home_is_expanded(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    assert resolve("~/models", Path("/")) == tmp_path / "models"


@pytest.mark.parametrize("name", demo.NAMES)
def test_built_in_models_by_name(name: str) -> None:
    assert (resolve(f"demo:{name}") / "config.json").exists()


def test_an_unknown_built_in_model_lists_those_there_are() -> None:
    with pytest.raises(ModelNotFound, match="demo:base"):
        resolve("demo:nope")


@pytest.mark.parametrize("reference", ["absent", "./a/b", "~nobody-here/x", "/absent", "a" * 5000])
def test_nothing_there_says_what_to_give(reference: str, tmp_path) -> None:
    with pytest.raises(ModelNotFound, match="Give a folder"):
        resolve(reference, tmp_path)


def test_a_folder_wins_over_the_hub(tmp_path, monkeypatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert resolve("org/name", tmp_path) == tmp_path / "org" / "name"


def test_a_hub_model_is_fetched_without_pickles(tmp_path, monkeypatch) -> None:
    import huggingface_hub

    asked = {}

    def download(repo_id: str, allow_patterns: list[str]) -> str:
        asked.update(repo=repo_id, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve("org/name", tmp_path) == tmp_path
    assert asked["repo"] == "org/name"
    assert "*.jinja" in asked["patterns"]
    assert not any("bin" in pattern or "*.py" in pattern for pattern in asked["patterns"])


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch) -> None:
    import huggingface_hub

    def download(*_: object, **__: object) -> str:
        raise OSError("many\nlines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelNotFound) as error:
        resolve("org/name", tmp_path)
    assert str(error.value).startswith("org/name: there is no such folder, and the Hub cannot be")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("GatedRepoError", "https://huggingface.co/org/name, and log in here: hf auth login"),
        ("RepositoryNotFoundError", "neither a folder nor a model of the Hub"),
        ("HFValidationError", "no model of the Hub can have this name"),
        ("LocalEntryNotFoundError", "the Hub cannot be reached"),
        ("OfflineModeIsEnabled", "the Hub cannot be reached"),
    ],
)
def test_what_the_hub_says_is_told_without_its_errors_names(kind, words, tmp_path, monkeypatch):
    import huggingface_hub

    cls = getattr(huggingface_hub.errors, kind)

    def download(*_: object, **__: object) -> str:
        raise cls.__new__(cls)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelNotFound) as error:
        resolve("org/name", tmp_path)
    assert words in str(error.value)
    assert "Error" not in str(error.value)


def test_a_folder_that_is_not_there_is_named_once(tmp_path) -> None:
    with pytest.raises(
        ModelNotFound, match=r"^a: there is no such folder \(looked for /.*/a\)\. Give"
    ):
        resolve("a", tmp_path)
    with pytest.raises(ModelNotFound, match=r"^/no/such: there is no such folder\. Give"):
        resolve("/no/such", tmp_path)


def test_short_names_are_the_same_wherever_the_models_lie(tmp_path) -> None:
    for name in ("expert0", "a/final", "b/final"):
        (tmp_path / "family" / name).mkdir(parents=True)
    family = tmp_path / "family"
    assert short_names(["expert0"], family) == ["expert0"]
    assert short_names([str(family / "expert0")]) == ["expert0"]
    assert short_names(["a/final", "./b/final"], family) == ["a/final", "b/final"]
    assert short_names(["a/final", "b/final", "expert0"], family) == [
        "a/final",
        "b/final",
        "expert0",
    ]
    assert short_names(["org/name", "demo:add"], family) == ["name", "demo:add"]
    assert short_names([]) == []


def test_models_of_one_name_are_told_apart_at_any_depth() -> None:
    paths = [
        ("/", "x", "run1", "out", "base"),
        ("/", "x", "run2", "out", "base"),
        ("/", "y", "sql"),
    ]
    assert distinct_names(paths) == ["run1/out/base", "run2/out/base", "sql"]
    assert distinct_names([("base",), ("models", "base")]) == ["base", "models/base"]
    assert distinct_names([("/", "base"), ("/", "m", "base")]) == ["/base", "m/base"]


def test_one_folder_by_two_names_keeps_both(tmp_path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "latest").symlink_to("v1")
    assert short_names(["v1", "latest"], tmp_path) == ["v1", "latest"]


@pytest.mark.parametrize("reference", ["a\0b", "~nobody-of-this-name/x", "n" * 5000, "a/b/c/d"])
def test_whatever_is_no_folder_has_a_short_name_too(reference: str) -> None:
    assert short_names([reference]) == [reference.split("/")[-1]]


@pytest.mark.parametrize("reference", ["org/name@main", "org/name+org/lora"])
def test_revisions_and_adapters_are_refused_with_what_to_do(reference: str, tmp_path) -> None:
    with pytest.raises(ModelNotFound, match="download that revision, or merge the adapter"):
        resolve(reference, tmp_path)
    (tmp_path / reference).mkdir(parents=True)
    assert resolve(reference, tmp_path) == tmp_path / reference, "a folder of that name is read"
