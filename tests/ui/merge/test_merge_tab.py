"""The Merge tab's handlers, called as functions, and the markup they give."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
import torch

from merging.engines.eager import Progress
from tests.mutated_recipes import expensive
from ui.jobs import Job, Jobs
from ui.library import Library
from ui.merge import MergeTab, drift, view
from ui.merge.texts import FIRST, shipped_recipes, suggest_name
from ui.merge.view import MergeDetails

RECIPE = "merge_method: ties\nbase_model: models/base\nmodels:\n- model: models/one\n"


@pytest.fixture
def tab(make_model, tmp_path: Path) -> Iterator[MergeTab]:
    torch.manual_seed(0)
    (tmp_path / "models").mkdir()
    for name in ("base", "one"):
        make_model(f"models/{name}", {"model.layers.0.mlp.up_proj.weight": torch.randn(8, 8)})
    jobs = Jobs()
    yield MergeTab(Library([tmp_path / "models"]), jobs, "cpu")
    jobs.close()


def watch(tab: MergeTab, job_id: str) -> list[tuple]:
    return list(tab.watched(job_id))


def test_good_recipe_is_told_in_words_and_may_start(tab: MergeTab) -> None:
    words, checks, start, reason = tab.checked(RECIPE, "new")
    assert "Start from models/base and take the changes of one." in words, "demo:base is another"
    assert "1 tensor will be merged" in checks
    assert f"Goes to <code>{tab.library.folder_of('new')}</code>" in checks
    assert start["interactive"] is True
    assert reason == ""


@pytest.mark.parametrize(
    ("text", "name", "where", "message"),
    [
        ("", "new", 1, "no recipe yet"),
        (None, None, 1, "no recipe yet"),
        ("[", "new", 1, "not valid YAML"),
        (RECIPE.replace("ties", "tis"), "new", 1, "ties"),
        (RECIPE.replace("models/one", "../secret"), "new", 1, "not one of the models on offer"),
        ("x" * 200_000, "new", 1, "200,000 characters"),
        (RECIPE, "", 3, "give the new model a name"),
        (RECIPE, "../up", 3, "letters"),
        (RECIPE, "base", 3, "base-2 is free"),
    ],
)
def test_start_is_closed_with_the_reason(tab: MergeTab, text, name, where, message) -> None:
    answer = tab.checked(text, name)
    assert answer[2]["interactive"] is False
    assert message in answer[where]


@pytest.mark.parametrize(
    ("text", "line", "look"),
    [
        (RECIPE + "dtpe: float32\n", 5, "is-error"),
        ("# of mine\n" + RECIPE.replace("models/one", "models/two"), 5, "is-error"),
        (RECIPE + "parameters:\n  density: 7\n", 6, "is-error"),
        (RECIPE + "parameters:\n  int8_mask: true\n", 6, "is-warning"),
    ],
)
def test_what_is_found_leads_to_its_line(tab: MergeTab, text: str, line: int, look: str) -> None:
    _, checks, *_ = tab.checked(text, "new")
    assert f'<li class="{look}"><button type="button" class="to-line" data-line="{line}">' in checks


def test_what_no_line_fits_leads_nowhere(tab: MergeTab) -> None:
    _, checks, *_ = tab.checked("models: [models/one]\n", "new")
    assert "merge_method is missing" in checks
    assert "data-line" not in checks


def test_merge_runs_to_a_result_card(tab: MergeTab) -> None:
    job_id, memory, reason = tab.started(RECIPE, "new")
    assert (memory, reason) == ({"job": job_id, "text": RECIPE, "name": "new"}, "")
    *_, last = watch(tab, job_id)
    assert "new is ready" in last[0]
    assert "sha256:" in last[5]
    assert "from_pretrained" in last[7]
    assert "changes of" in last[5] and last[8] == RECIPE
    assert last[9] == ("models/new", ("models/base", "models/one"))
    assert tab.library.get("models/new").kind == "merged"
    assert (tab.library.get("models/new").folder / "amalgam.yaml").is_file()


def test_second_start_finds_the_first_job(tab: MergeTab) -> None:
    tab.jobs.submit("other", "other", lambda job: job.cancel.wait(10))  # keeps ours in line
    first = tab.started(RECIPE, "new")[0]
    assert tab.started(RECIPE, "new")[0] == first
    refused = tab.started(RECIPE.replace("ties", "pcb"), "new")
    assert "made by another merge" in refused[2]


def test_waiting_says_how_many_are_before(tab: MergeTab) -> None:
    running = threading.Event()

    def other(job: Job) -> None:
        running.set()
        job.cancel.wait(10)

    tab.jobs.submit("other", "other", other)
    assert running.wait(20)
    job_id = tab.started(RECIPE, "new")[0]
    drawing = tab.watched(job_id)
    assert "new waits: 1 merge before it" in next(drawing)[0]
    tab.stopped(job_id)
    *_, last = drawing
    assert "was stopped" in last[0]
    assert not tab.library.folder_of("new").exists()


def test_reload_finds_the_job_and_strangers_find_nothing(tab: MergeTab) -> None:
    job_id, memory, _ = tab.started(RECIPE, "new")
    assert tab.remembered(memory, "")[:3] == (job_id, RECIPE, "new")
    for stranger in ("", None, "nothing", 5):
        *memory, fresh, notice = tab.remembered(stranger, RECIPE)
        assert memory == [gr.skip()] * 3
        assert fresh == "ties"
        assert notice == gr.skip() or "new is being merged from another page" in notice
        assert watch(tab, stranger) == [tuple([gr.skip()] * 11)]


def test_a_merge_that_ended_with_its_server_comes_back_as_a_recipe(tab: MergeTab) -> None:
    memory = {"job": "of an earlier server", "text": RECIPE, "name": "<i>lost"}
    assert tab.remembered(memory, "")[1] == gr.skip(), "that is no name of ours"
    _, text, name, _, notice = tab.remembered({**memory, "name": "lost"}, "")
    assert (text, name) == (RECIPE, "lost")
    assert "lost was interrupted" in notice
    assert tab.remembered({**memory, "name": "base"}, "")[1] == gr.skip(), "it was finished"


def test_failure_is_one_line(tab: MergeTab) -> None:
    job_id = tab.started(RECIPE, "new")[0]
    watch(tab, job_id)
    tab.library.get("models/one").folder.joinpath("model.safetensors").write_bytes(b"x" * 20)
    job_id = tab.started(RECIPE, "other")[0]
    *_, last = watch(tab, job_id)
    assert "other failed" in last[0]
    assert "Traceback" not in last[0]


def test_a_page_that_shows_a_merge_starts_no_other(tab: MergeTab) -> None:
    tab.jobs.submit("other", "other", lambda job: job.cancel.wait(10))  # keeps ours in line
    first = tab.started(RECIPE, "new")[0]
    refused = tab.started(RECIPE, "another", first)
    assert "new is not over yet" in refused[2]
    assert tab.started(RECIPE, "new", first)[0] == first, "a second click finds the first job"
    assert tab.started(RECIPE, "another")[0] not in ("", first), "another page may wait in line"


def test_a_merge_that_ended_is_not_called_interrupted_later(tab: MergeTab) -> None:
    tab.jobs.submit("other", "other", lambda job: job.cancel.wait(10))
    job_id, memory, _ = tab.started(RECIPE, "new")
    assert tab.ended(job_id, memory) == gr.skip(), "it goes on"
    tab.stopped(job_id)
    memory = tab.ended(job_id, memory)
    assert memory["over"] == "stopped"
    *_, notice = tab.remembered({**memory, "job": "of an earlier server"}, RECIPE)
    assert "interrupted" not in str(notice)


def test_a_recipe_that_is_replaced_can_be_brought_back(tab: MergeTab) -> None:
    assert tab.chosen("all_ties", RECIPE)[2] == RECIPE
    assert tab.opened(RECIPE.encode(), "mine")[2:] == ("mine", gr.update(visible=True), None)
    shipped = shipped_recipes()["all_ties"].read_text()
    assert tab.chosen("add_sort", shipped)[2] == "", "it is in the list"


def test_opening_a_file(tab: MergeTab) -> None:
    assert tab.opened(RECIPE.encode(), "")[:3] == (RECIPE, "", "")
    assert tab.opened(b"\xef\xbb\xbf" + RECIPE.encode(), "")[0] == RECIPE
    assert "not a text file" in tab.opened(b"\xff\xfe\x00", "")[1]
    assert "500,000 bytes" in tab.opened("é".encode() * 250_000, "")[1]


def test_no_recipe_stops_the_page(tab: MergeTab) -> None:
    for name, data in expensive().items():
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        words, checks, start, _ = tab.checked(text, "new")
        assert (words, start["interactive"]) == ("", False), name
        assert checks.count("is-error") == 1, name
        assert checks.isprintable(), name
        assert len(checks) < 1000, name
        assert tab.suggested(text) in ("", "ties"), name


def test_names_are_suggested(tab: MergeTab) -> None:
    assert suggest_name(tab.library, RECIPE) == "ties"
    assert suggest_name(tab.library, shipped_recipes()["all_ties"].read_text()) == "all_ties"
    assert suggest_name(tab.library, "") == ""
    assert tab.named("base") == ("base-2", "base-2")
    assert tab.named("other") == (gr.skip(), gr.skip())


def make_job(**values) -> Job:
    job = Job("id", "key", "<b>name</b>", MergeDetails(None, "", (0, 1, 2, 3), ()))  # type: ignore[arg-type]
    for key, value in values.items():
        setattr(job, key, value)
    return job


def test_progress_bar_says_its_value() -> None:
    at = Progress("merge", 50, 100, "model.layers.1.<x>", 1, 2.0, 1e9, 2.0)
    job = make_job(state="running", progress=at, started_s=1.0)
    job.details.note(at)
    html = view.progress(job)
    assert 'role="progressbar"' in html
    assert 'aria-valuenow="50"' in html
    assert "&lt;x&gt;" in html
    assert html.count("<i ") == 4
    assert 'class="now"' in html


def test_what_is_left_is_told_in_whole_seconds_and_the_end_by_what_is_done() -> None:
    def text(done: int, eta_s: float) -> str:
        at = Progress("merge", done, 1000, "lm_head", None, 2.0, 1e9, eta_s)
        return view.progress(make_job(state="running", progress=at, started_s=1.0))

    assert "50% ·" in text(500, 2.0) and "2 s to go" in text(500, 2.0)
    assert "99% ·" in text(999, 0.01) and "to go" not in text(999, 0.01)
    assert "Bringing it to the disk" in text(1000, 0.0) and "lm_head" not in text(1000, 0.0)


def test_layers_start_anew_with_every_pass() -> None:
    details = MergeDetails(None, "", (0, 1), ())  # type: ignore[arg-type]
    passes = (("measure", (1, 0)), ("measure", (0,)), ("merge", (1,)))  # in any order
    for (phase, layers), past in zip(passes, ({0, 1}, {0}, {1}), strict=True):
        for layer in layers:
            details.note(Progress(phase, 0, 1, f"layers.{layer}", layer, 0.0, 0.0, None))
        assert details.past == past


def test_names_are_escaped_everywhere() -> None:
    job = make_job(state="failed", error="<i>")
    assert "<b>" not in view.status(job, 0)
    assert "<i>" not in view.status(job, 0)
    entry = SimpleNamespace(name="<t>", status="copied", reason="<r>")
    report = SimpleNamespace(
        problems=(SimpleNamespace(severity="error", where="<w>", message="<m>", line=None),),
        account=(entry,),
        disk_bytes=1,
        memory_bytes=1,
    )
    html = view.checks(report, 10, "<target>")
    assert not re.search("<[twmr]>", html)


def test_what_was_foreseen_stands_beside_what_was_measured() -> None:
    moved = {0: 0.1, 1: 0.3, None: 0.2}
    foreseen = {0: (0.101, 0.002), 1: (0.32, 0.01), None: (0.2, float("inf"))}
    value = drift.drift_value(moved, foreseen)
    bars, marks = value["figure"]["data"]
    assert (bars["name"], marks["name"]) == ("measured", "predicted")
    assert marks["y"] == [0.101, 0.32, 0.2]
    assert marks["error_y"]["array"] == [0.002, 0.01, 0.0]
    assert "2 of 3 lie within" in value["note"]
    assert value["table"]["rows"][1] == ["1", "30.0%", "32.00%", "1.00%"]
    assert len(drift.drift_value(moved, {})["figure"]["data"]) == 1


def test_drift_draws_every_layer_and_says_the_largest() -> None:
    moved = {0: 0.1, 1: 0.3, None: 0.2}
    value = drift.drift_value(moved)
    assert value["figure"]["data"][0]["x"] == ["0", "1", "rest"]
    assert value["table"]["rows"][1] == ["1", "30.0%"]
    assert drift.drift_words(moved) == "Layer 1 moved most: 30.0% of its own norm."
    assert drift.drift_words({0: 0.0, None: 0.0}) == "No layer moved: the result is the base."
    assert "no single model" in drift.drift_words({})


def test_every_shipped_recipe_is_offered_and_nothing_else_is_read() -> None:
    names = list(shipped_recipes())
    assert names[0] == FIRST
    assert len(names) >= 2
    for name in names:
        assert "merge_method" in shipped_recipes()[name].read_text(encoding="utf-8")
    assert "../../etc/passwd" not in shipped_recipes()


def test_a_recipe_that_was_edited_comes_back_after_a_reload(tab: MergeTab) -> None:
    edited = RECIPE.replace("ties", "pcb")
    _, text, _, fresh, _ = tab.remembered({}, RECIPE, {"text": edited})
    assert (text, fresh) == (edited, "pcb")
    for nothing in ({}, None, [], {"text": 5}):
        assert tab.remembered({}, RECIPE, nothing)[1] == gr.skip()


def test_an_edit_made_after_a_merge_was_started_comes_back_too(tab: MergeTab) -> None:
    job_id, memory, _ = tab.started(RECIPE, "new")
    assert tab.remembered(memory, "", {"text": "later"})[:2] == (job_id, "later")
    assert tab.remembered(memory, "", {})[:2] == (job_id, RECIPE)


def test_merges_in_line_keep_their_room(tab: MergeTab) -> None:
    """A merge is refused where those that wait were promised the room that it needs."""
    ahead = tab.jobs.submit("ahead", "ahead", lambda job: job.cancel.wait(20), disk_bytes=2**62)
    _, _, reason = tab.started(RECIPE, "new")
    assert "new needs" in reason
    assert "in line before it" in reason
    assert tab.jobs.active(str(tab.library.folder_of("new"))) is None
    tab.jobs.stop(ahead.id)
