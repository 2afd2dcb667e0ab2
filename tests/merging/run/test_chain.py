"""Recipes of several stages: their order, what is left in the end, what is gone on with."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
import yaml

from merging import recipe as recipes
from merging.engines.eager import Progress
from merging.errors import Cancelled, MergeError, NotEnoughSpace, RecipeError
from merging.recipe.stages import needed
from merging.run import space
from merging.run.merge import Result, merge
from merging.run.preflight import check, open_recipe
from tests.families import document, llama, load_model, merged, tuned, write_family

SMALL = {"layers": 2, "hidden": 8, "kv": 8, "inner": 12, "vocab": 16}
NAME = "model.layers.1.mlp.up_proj.weight"
DOUBLED = document("task_arithmetic", [{"weight": 2.0}])
OVER = {"merge_method": "linear", "models": ["second", "expert1"]}
BETWEEN = {"merge_method": "task_arithmetic", "base_model": "base", "models": ["first"]}


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    base = llama(0, **SMALL)
    return write_family(tmp_path_factory.mktemp("chain"), base, [tuned(base, 1), tuned(base, 2)])


def text_of(*stages: tuple[str | None, dict]) -> str:
    named = [{**one, **({"name": name} if name else {})} for name, one in stages]
    return yaml.safe_dump_all(named)


TEXT = text_of((None, OVER), ("second", BETWEEN), ("first", DOUBLED))  # in no order


def run(parent: Path, out: Path, text: str = TEXT, **options) -> Result:
    return merge(recipes.parse(text, parent), out, device="cpu", **options)


def test_stages_are_merged_in_the_order_of_need(parent, tmp_path) -> None:
    recipe = recipes.parse(TEXT, parent)
    assert [name for name, _ in recipe.stages] == ["first", "second"]
    run(parent, tmp_path / "out")
    base, one, two = (load_model(parent / n)[NAME] for n in ("base", "expert0", "expert1"))
    expected = ((base + 2 * (one - base)) + two) / 2
    assert torch.allclose(load_model(tmp_path / "out")[NAME], expected, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_record_runs_again_to_the_same_bytes(parent, tmp_path) -> None:
    first = run(parent, tmp_path / "out")
    again = recipes.load(tmp_path / "out" / "amalgam.yaml")
    assert recipes.parse(recipes.dump(again)) == recipes.parse(recipes.dump(again))
    assert merge(again, tmp_path / "again", device="cpu").fingerprint == first.fingerprint
    assert str(tmp_path) not in (tmp_path / "out" / "README.md").read_text()


def test_a_recipe_of_stages_written_and_read_again_is_the_same(parent) -> None:
    recipe = recipes.parse(TEXT, parent)
    assert recipes.parse(recipes.dump(recipe), parent) == recipe


def test_check_looks_at_every_stage_before_anything_is_merged(parent, tmp_path) -> None:
    report = check(recipes.parse(TEXT, parent), tmp_path / "out")
    assert report.ok
    one = check(recipes.from_mapping(DOUBLED, parent))
    assert report.disk_bytes == 3 * one.disk_bytes
    assert len(report.account) == len(one.account)
    wrong = {**DOUBLED, "models": ["demo:add"]}
    text = text_of((None, OVER), ("second", BETWEEN), ("first", wrong))
    report = check(recipes.parse(text, parent))
    assert not report.ok
    assert any("first: " in problem.sentence for problem in report.problems)
    with pytest.raises(MergeError, match=r"first: "):
        run(parent, tmp_path / "out", text)
    assert not list(tmp_path.iterdir())


def test_results_of_stages_are_kept_where_asked(parent, tmp_path) -> None:
    run(parent, tmp_path / "out", stages=tmp_path / "kept")
    names = sorted(path.name for path in (tmp_path / "kept").iterdir() if path.is_dir())
    assert names == ["first", "second"]
    alone = merged(DOUBLED, parent, tmp_path / "alone")
    assert torch.equal(load_model(tmp_path / "kept" / "first")[NAME], alone[NAME])


def stopped(parent: Path, out: Path, after: float, **options) -> list[Progress]:
    """A merge that is stopped once a share of its work is done."""
    reports: list[Progress] = []
    cancel = threading.Event()

    def see(progress: Progress) -> None:
        reports.append(progress)
        if progress.done >= after * progress.total:
            cancel.set()

    with pytest.raises(Cancelled):
        run(parent, out, progress=see, cancel=cancel, **options)
    return reports


def test_a_stopped_merge_leaves_nothing(parent, tmp_path) -> None:
    stopped(parent, tmp_path / "out", 0.5)
    assert not list(tmp_path.iterdir())


def test_what_is_done_is_gone_on_with(parent, tmp_path) -> None:
    stopped(parent, tmp_path / "out", 0.5, resume=True)
    (folder,) = tmp_path.iterdir()
    assert (folder / "first" / "config.json").exists()
    reports: list[Progress] = []
    run(parent, tmp_path / "out", resume=True, progress=reports.append)
    assert reports[0].done >= reports[0].total / 3 - 1  # the first of three is not merged again
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_progress_is_that_of_all_stages(parent, tmp_path) -> None:
    reports: list[Progress] = []
    run(parent, tmp_path / "out", progress=reports.append)
    assert len({one.total for one in reports}) == 1
    done = [one.done for one in reports]
    assert done == sorted(done)
    assert done[-1] == reports[-1].total


def test_all_results_must_fit_the_disk_at_once(parent, tmp_path, monkeypatch) -> None:
    need = check(recipes.parse(TEXT, parent)).disk_bytes
    monkeypatch.setattr(space, "_free_bytes", lambda path: need - 1)
    with pytest.raises(NotEnoughSpace):
        run(parent, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_who_opens_a_recipe_of_stages_is_told_to_merge_it(parent) -> None:
    with pytest.raises(RecipeError, match=r"first, second"):
        open_recipe(recipes.parse(TEXT, parent))


ALONE = text_of(("alone", BETWEEN), (None, OVER), ("second", DOUBLED), ("first", DOUBLED))


def test_what_no_other_uses_is_merged_only_where_results_are_kept(parent, tmp_path) -> None:
    # as mergekit-multi 0.1.5, which writes every named result into its intermediate folder
    result = run(parent, tmp_path / "out", ALONE)
    assert any("alone: its result is used by no other recipe" in note for note in result.notes)
    assert not any("second" in note or "first" in note for note in result.notes)
    assert "alone" not in (tmp_path / "out" / "amalgam.yaml").read_text()
    run(parent, tmp_path / "again", ALONE, stages=tmp_path / "kept")
    names = sorted(path.name for path in (tmp_path / "kept").iterdir() if path.is_dir())
    assert names == ["alone", "first", "second"]
    both = (load_model(tmp_path / name)[NAME] for name in ("out", "again"))
    assert torch.equal(*both)


def test_a_stage_without_effect_need_not_have_models(parent, tmp_path) -> None:
    lost = {**DOUBLED, "base_model": "/lost"}
    recipe = recipes.parse(text_of(("alone", lost), (None, DOUBLED)), parent)
    assert check(recipe).ok
    assert open_recipe(recipe).merged
    assert recipes.parse(recipes.dump(recipe), parent) == recipe


def test_where_all_have_names_the_last_that_no_other_uses_is_the_result(parent, tmp_path) -> None:
    text = text_of(
        ("one", DOUBLED), ("two", {**OVER, "models": ["base", "first"]}), ("first", DOUBLED)
    )
    recipe = recipes.parse(text, parent)
    assert recipe.method == "linear"
    assert [name for name, _ in needed(recipe).stages] == ["first"]
    assert {name for name, _ in recipe.stages} == {"one", "first"}
    assert any("two is the result" in note for note in recipe.notes)


LOOP = {**BETWEEN, "models": ["second"]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (text_of((None, OVER), ("second", BETWEEN), ("first", LOOP)), ["circle", "first needs"]),
        (text_of((None, DOUBLED), (None, DOUBLED)), ["two results", "no name"]),
        (text_of(("a", DOUBLED), ("a", DOUBLED)), ["name", "a is given twice"]),
        (text_of((None, OVER), ("secnd", DOUBLED)), ["second", "did you mean secnd"]),
        (text_of((None, OVER), ("../second", DOUBLED)), ["name", "../second"]),
        ("---\n".join(["{merge_method: linear, models: [base]}\n"] * 65), ["document 65", "64"]),
    ],
)
def test_a_mistake_among_stages_is_one_line(text: str, words: list[str], parent) -> None:
    with pytest.raises(RecipeError) as error:
        recipes.parse(text, parent)
    assert all(word in str(error.value) for word in words), str(error.value)
