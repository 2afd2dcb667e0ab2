"""Add a model: looked at first, then on offer; downloads that end, resume, and are shared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
import torch

from merging import demo
from merging.checkpoints import open_checkpoint
from merging.hub.cache import Hub
from tests.hub_server import COMMIT, HubRepository, HubServer, files_of, hub_server
from ui.added import Added
from ui.adding import AddingTab, view
from ui.jobs import Job, Jobs
from ui.library import Library

W = {"w": torch.ones(4, 4)}
WEIGHTS = "model.safetensors"
PINNED = f"org/adder@{COMMIT}"


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as server:
        repository = HubRepository(files_of(demo.folder("add")), {"license": "apache-2.0"})
        server.repositories["org/adder"] = repository
        yield server


@pytest.fixture
def tab(server: HubServer, tmp_path: Path) -> Iterator[AddingTab]:
    folders = [tmp_path / "models"]
    added, downloads = Added(folders), Jobs("downloads")
    library = Library(folders, added=added)
    yield AddingTab(library, added, downloads, Hub(server.url, tmp_path / "hub"))
    server.go.set()
    downloads.close()


def looked(tab: AddingTab, text: str) -> tuple:
    """What a look ends with: what is said, the facts, what Add adds."""
    said, facts, pinned, _ = list(tab.looked(text, "demo:base"))[-1]
    return said, facts if isinstance(facts, str) else "", pinned


def ended(tab: AddingTab, pinned: str = PINNED) -> str:
    """What is said when the download of this model, started now, is over."""
    job_id = tab.started(pinned, 0)[1]
    return list(tab.watched(job_id, 0))[-1][0]


def test_a_look_says_what_it_is_and_loads_nothing(tab: AddingTab, server: HubServer) -> None:
    said, facts, pinned = looked(tab, "org/adder@main")
    assert said == "org/adder: 1.4 M parameters. Nothing is loaded yet."
    for fact in ("LlamaForCausalLM", "1.4 M", "5.3 MiB to download", "float32", "apache-2.0"):
        assert fact in facts
    for title, fact in (("Context", "128 tokens"), ("Fits the base", "yes, by its shapes")):
        assert f"<dt>{title}</dt><dd>{fact}</dd>" in facts
    assert COMMIT in facts and "Free disk" in facts
    assert pinned == PINNED
    assert WEIGHTS not in server.fetched()


def test_a_folder_is_looked_at_and_on_offer_at_once(tab: AddingTab, make_model) -> None:
    folder = make_model("mine", W)
    said, facts, pinned = looked(tab, f" {folder}/ ")
    assert pinned == str(folder)
    assert "<dt>Fits the base</dt><dd>no: " in facts
    assert "Free disk" not in facts
    said, _, times, _ = tab.started(pinned, 4)
    assert (said, times) == ("mine is on offer now, in Explore, Chat and Merge.", 5)
    assert tab.library.has(str(folder))
    said, _, pinned = looked(tab, str(folder))
    assert (said, pinned) == ("It is on offer already: mine.", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "give a folder"),
        (None, "give a folder"),
        ("/absent", "there is no such folder"),
        ("/etc", "missing"),
        ("/a\0b", "no folder has such a name"),
        ("/" + "x" * 5000, "cannot be opened"),
        ("relative/../x", "neither an absolute path nor a Hub id"),
        ("org/absent", "the Hub has no such model"),
        ("org/adder@<b>", "is no revision"),
    ],
)
def test_what_cannot_be_added_is_one_line(text, words, tab: AddingTab) -> None:
    said, facts, pinned = looked(tab, text)
    assert words in said
    assert "<" not in said
    assert (facts, pinned) == ("", "")


def test_a_download_ends_with_a_model_on_offer(tab: AddingTab) -> None:
    looked(tab, "org/adder")
    assert "on offer now" in ended(tab)
    model = tab.library.get(PINNED)
    assert (model.kind, model.label) == ("hub", "adder")
    assert (model.folder / WEIGHTS).read_bytes() == (demo.folder("add") / WEIGHTS).read_bytes()
    one = tab.added.get(PINNED)
    assert (one.licence, one.is_whole, one.is_fetched) == ("apache-2.0", True, True)


def test_two_pages_share_one_download(tab: AddingTab, server: HubServer) -> None:
    server.stops[WEIGHTS] = 1_000_000
    first, second = tab.started(PINNED, 0)[1], tab.started(PINNED, 0)[1]
    assert first == second
    assert server.stopped.wait(30)
    assert tab.arrived()[0] == first, "and so does one that is opened now"
    server.go.set()
    assert "on offer now" in list(tab.watched(second, 0))[-1][0]
    assert server.fetched().count(WEIGHTS) == 1


def test_a_cancelled_download_is_never_half_a_model_and_resumes(
    tab: AddingTab, server: HubServer
) -> None:
    server.stops[WEIGHTS] = 2_000_000
    job_id = tab.started(PINNED, 0)[1]
    assert server.stopped.wait(30)
    tab.cancelled(job_id)
    server.go.set()
    assert "was stopped. What has come is kept." in list(tab.watched(job_id, 0))[-1][0]
    assert not tab.library.has(PINNED)
    assert tab.chosen(PINNED)[0] == gr.update(visible=True), "it can be resumed"
    again = Library([tab.added.file.parent], added=Added([tab.added.file.parent]))
    assert not again.has(PINNED), "nor after a restart"
    said, job_id, _, _ = tab.resumed(PINNED)
    assert said.startswith("Downloading org/adder@0123456")
    assert "on offer now" in list(tab.watched(job_id, 0))[-1][0]


def test_a_download_that_fails_says_why(tab: AddingTab, server: HubServer) -> None:
    server.altered.add(WEIGHTS)
    said = ended(tab)
    assert "not what the Hub says it is" in said and "Resume" in said
    assert not tab.library.has(PINNED)


def test_a_model_is_taken_off_the_list_and_files_stay_unless_asked(
    tab: AddingTab, make_model, server: HubServer
) -> None:
    folder = make_model("mine", W)
    tab.started(str(folder), 0)
    said, times, _ = tab.removed(str(folder), True, 0)
    assert (times, folder.exists(), tab.library.has(str(folder))) == (1, True, False)
    assert "its files stay where they are" in said
    ended(tab)
    weights = tab.library.get(PINNED).folder / WEIGHTS
    tab.removed(PINNED, False, 0)
    assert weights.exists() and not tab.library.has(PINNED)
    server.requests.clear()
    ended(tab)
    assert WEIGHTS not in server.fetched(), "it was here"
    assert not tab.added.get(PINNED).is_fetched, "somebody else's, for all that is known"
    tab.removed(PINNED, True, 0)
    assert weights.exists()


def test_downloaded_files_are_deleted_where_that_is_asked(tab: AddingTab) -> None:
    ended(tab)
    weights = tab.library.get(PINNED).folder / WEIGHTS
    assert tab.chosen(PINNED)[1]["visible"]
    assert "its files are deleted" in tab.removed(PINNED, True, 0)[0]
    assert not weights.exists()


def test_what_is_in_use_is_not_deleted(tab: AddingTab) -> None:
    ended(tab)
    busy = AddingTab(tab.library, tab.added, tab.downloads, tab.hub, lambda folder: "is in use.")
    assert busy.removed(PINNED, True, 0)[0] == "org/adder is in use."
    assert tab.library.has(PINNED)


def test_whether_it_fits_is_told_with_its_vocabulary() -> None:
    base = open_checkpoint(demo.folder("base"))
    name = "model.embed_tokens.weight"
    longer = {**base.tensors, name: replace(base.tensors[name], shape=(400, 160))}
    assert view.fit(base, base) == "yes, by its shapes"
    fit = view.fit(base, replace(base, tensors=longer))
    assert fit == "yes; its vocabulary has 400 rows, the base 346"
    assert view.fit(base, replace(base, config={**base.config, "num_hidden_layers": 2})) == (
        "no: 2 layers, the base 4"
    )


def test_progress_is_told_in_numbers_too() -> None:
    from merging.hub.fetching import Progress

    job = Job("1", "k", "org/<x>", {"began": 0}, state="running", progress=Progress(300, 1000))
    drawn = view.progress(job)
    assert 'aria-valuenow="30"' in drawn and "30%, 300 B of 1000 B" in drawn
    assert "org/&lt;x&gt;" in drawn
    job.state = "done"
    assert view.progress(job) == view.progress(None) == ""
