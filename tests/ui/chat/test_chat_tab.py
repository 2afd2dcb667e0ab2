"""The Chat tab's handlers, and the store of loaded models behind them."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from merging import recipe as recipes
from merging.errors import Cancelled, NotEnoughSpace
from tests.chat_models import make_chat_model
from tests.merging.trial.folders import changed
from tests.merging.trial.test_confined import FOR_EVER
from tests.merging.trial.test_model import beyond_the_rows
from ui.chat import ChatTab, first_models
from ui.chat.speakers import LIVE
from ui.chat.view import COLUMNS, choices, how
from ui.library import Library
from ui.live import LivePages
from ui.store import ModelStore

GREEDY = {"temperature": 0, "top_p": 1, "longest": 12, "seed": 0}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat") / "models"
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    other = {"max_position_embeddings": 64, "eos_token_id": None, "initializer_range": 0.02}
    for seed, name in enumerate(("a", "b")):
        make_chat_model(root / name, seed=seed, **shape, **other)
    return root


def tab_over(folder: Path | None, budget: int = 2**30) -> ChatTab:
    library = Library([folder] if folder else [])
    store, pages = ModelStore(budget, "cpu"), LivePages(2**30, "cpu")
    return ChatTab(None, library, store, pages)  # type: ignore[arg-type]


@pytest.fixture
def tab(models: Path) -> ChatTab:
    return tab_over(models)


def visitor(name: str = "me"):
    return SimpleNamespace(session_hash=name)


def event(content):
    return SimpleNamespace(_data=content)


def asked(tab: ChatTab, model: str, text: str = "Hi", run: str = "1", who="me", **settings):
    """The stream of an answer."""
    content = {
        "run": run,
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "settings": {**GREEDY, **settings},
    }
    return tab.answered(event(content), visitor(who))


def test_an_answer_grows_and_ends_with_what_it_took(tab: ChatTab) -> None:
    *_, last = asked(tab, "models/a")
    assert (last["run"], last["state"], last["finish"], last["tokens"]) == (
        "1",
        "over",
        "length",
        12,
    )
    assert last["note"].startswith("12 tokens · ")
    assert last["rate"].endswith("tokens/s")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "named no answer"),
        ([], "named no answer"),
        ({"run": 3}, "run: not a text"),
        ({"run": "1", "model": "models/a", "messages": []}, "1 to 1002 messages"),
    ],
)
def test_what_is_no_question_is_answered_with_why(tab: ChatTab, content, reason) -> None:
    (answer,) = tab.answered(event(content), visitor())
    assert answer["state"] == "failed"
    assert reason in answer["note"]


def test_models_that_are_not_on_offer_answer_nothing(tab: ChatTab) -> None:
    (answer,) = asked(tab, "/etc/passwd")
    assert answer["state"] == "failed"
    assert "not one of the models on offer" in answer["note"]


def test_too_long_for_one_model_fails_in_its_cell(tab: ChatTab) -> None:
    *_, last = asked(tab, "models/a", "7" * 100)
    assert last["state"] == "failed"
    assert "at most 63" in last["note"]


def test_stop_before_it_begins(tab: ChatTab) -> None:
    tab.stopped(event({"run": "1"}), visitor())
    (last,) = asked(tab, "models/a")
    assert (last["state"], last["note"], last["text"]) == ("over", "stopped", "")


def test_stop_of_one_leaves_the_others_of_all_pages(tab: ChatTab) -> None:
    streams = [
        asked(tab, "models/a", run=run, who=who, longest=40)
        for run, who in (("1", "me"), ("2", "me"), ("1", "you"))
    ]
    for stream in streams:
        next(stream)
    tab.stopped(event({"run": "1"}), visitor("me"))
    finishes = [list(stream)[-1]["finish"] for stream in streams]
    assert finishes == ["stopped", "length", "length"]


def test_leaving_stops_what_is_written(tab: ChatTab) -> None:
    stream = asked(tab, "models/a", longest=40)
    next(stream)
    tab.leave(visitor())
    assert list(stream)[-1]["finish"] == "stopped"


def test_an_abandoned_answer_is_stopped(tab: ChatTab) -> None:
    stream = asked(tab, "models/a")
    next(stream)
    stop = tab.stops.of("me", "1")
    stream.close()
    assert stop.is_set()


def test_a_stop_that_says_nothing_stops_nothing(tab: ChatTab) -> None:
    tab.stopped(event(None), visitor())


def test_defect_is_logged_not_shown(tab: ChatTab, monkeypatch, caplog) -> None:
    monkeypatch.setattr(tab.store, "get", lambda model, stop: 1 / 0)
    *_, last = asked(tab, "models/a")
    assert "log id" in last["note"]
    assert "ZeroDivisionError" in caplog.text


def test_four_columns_at_most(tab: ChatTab) -> None:
    group, board, _ = tab.chose(
        ["models/a", "models/b", "demo:base", "demo:add", "demo:sort"], visitor()
    )
    assert group["value"] == ["models/a", "models/b", "demo:base", "demo:add"]
    assert [column["name"] for column in board["columns"]] == group["value"]


def test_a_model_that_is_gone_leaves_the_choice(tab: ChatTab) -> None:
    group, board, _ = tab.chose(["models/a", "models/gone"], visitor())
    assert group["value"] == ["models/a"]
    assert len(board["columns"]) == 1


def test_merged_model_stands_beside_its_sources(tab: ChatTab) -> None:
    update = tab.beside("models/b", ("demo:base", "models/a"))
    assert update["value"] == ["demo:base", "models/a", "models/b"]


def test_first_models_are_on_offer(tab: ChatTab) -> None:
    chosen = first_models(tab.library)
    assert 2 <= len(chosen) <= COLUMNS
    assert all(tab.library.get(name) for name in chosen)


def test_examples_are_the_familys_or_general_ones(tab: ChatTab) -> None:
    examples = lambda *names: tab.chose(list(names), visitor())[2]["examples"]  # noqa: E731
    skills = ["What is 37 + 45?", "Reverse silver", "Write 347 in Spanish", "Sort 5 1 4 2"]
    assert examples("demo:base", "demo:add") == skills
    assert not set(examples("models/a")) & set(skills)
    assert set(examples("models/a", "demo:add")) > set(skills)


def test_what_a_browser_kept_comes_back(tab: ChatTab) -> None:
    kept = {
        "chosen": ["models/b", "gone", "models/a"],
        "settings": {
            "temperature": 0.7,
            "top_p": 9,
            "longest": "x",
            "seed": 5,
            "system": "Be kind",
        },
    }
    chosen, board, examples, *settings, heading = tab.restored(kept)
    assert chosen["value"] == ["models/b", "models/a"]
    assert chosen["choices"] == choices(tab.library)  # a model may be younger than the app
    assert [column["label"] for column in board["columns"]] == ["b", "a"]
    assert board == examples
    assert settings == [0.7, 1, 128, 5, "Be kind"], "what is out of bounds or no number is not"
    assert heading["label"].endswith("temperature 0.7")


@pytest.mark.parametrize(
    "kept", [None, [], "x", {"chosen": 3, "settings": []}, {"chosen": [None, {"a": 1}, "gone"]}]
)
def test_nothing_or_nonsense_kept_changes_nothing(tab: ChatTab, kept) -> None:
    assert tab.restored(kept) == [gr.skip()] * 9


def test_sampling_is_named_in_its_heading() -> None:
    assert how(0).endswith("greedy")
    assert how(0.7).endswith("temperature 0.7")


def merged(tab: ChatTab, weight: float):
    """The live merge of a page, of one expert."""
    recipe = recipes.parse(
        f"""merge_method: task_arithmetic
base_model: demo:base
models: [{{model: demo:add, parameters: {{weight: {weight}}}}}]
"""
    )
    live = tab.pages.get("me", recipe)
    live.settle(recipe)
    return live


def test_the_live_merge_of_the_page_answers_as_the_model_it_is(tab: ChatTab) -> None:
    model = merged(tab, 1.0)
    *_, live = asked(tab, LIVE, "What is 37 + 45?")
    assert (live["text"], live["state"]) == ("82", "over")
    assert live["fingerprint"] == model.fingerprint()
    *_, other = asked(tab, LIVE, who="you")
    assert other["state"] == "failed"
    assert "no live merge now; switch Live on" in other["note"]


def test_the_live_merge_is_offered_where_there_is_one(tab: ChatTab) -> None:
    merged(tab, 0.5)
    assert tab.opened([LIVE, "models/a"], visitor())["choices"][0] == LIVE
    assert tab.chose([LIVE, "models/a"], visitor())[1]["columns"][0]["label"] == LIVE
    update = tab.opened([LIVE, "models/a"], visitor("you"))
    assert LIVE not in update["choices"]
    assert update["value"] == ["models/a"]


def test_another_merge_ends_the_answer_with_a_note(tab: ChatTab) -> None:
    live = merged(tab, 1.0)
    stream = asked(tab, LIVE, "What is 37 + 45?")
    while next(stream)["state"] != "running":
        pass
    settling = threading.Thread(target=merged, args=(tab, 0.5))
    settling.start()  # waits until the answer is over
    while not live._turns[0].is_set():
        settling.join(0.01)
    *_, last = stream
    settling.join()
    assert last["state"] == "over"
    assert "ended, because the merge changed" in last["note"]


@pytest.mark.parametrize(
    ("edit", "file", "reason"),
    [
        (beyond_the_rows, "tokenizer.json", "the embedding has 346 rows (0 to 345)"),
        ("{{ 'x' * 1000000000 }}", "chat_template.jinja", "asks for more memory"),
        (lambda c: c.update(num_hidden_layers=100_000), "config.json", "num_hidden_layers 100000"),
    ],
)
def test_a_bad_model_says_so_in_its_column_and_the_others_answer(
    edit, file: str, reason: str, models: Path, tmp_path: Path
) -> None:
    bad = changed(tmp_path / "models" / "bad", edit, file)
    shutil.copytree(models / "a", bad.parent / "good")
    tab = tab_over(bad.parent)
    for name, state in (("models/bad", "failed"), ("models/good", "over")):
        *_, last = asked(tab, name, "hello <y>")
        assert last["state"] == state
        assert (reason in last["note"]) == (state == "failed")


def test_stop_reaches_a_template_without_end(models: Path, tmp_path: Path) -> None:
    changed(tmp_path / "models" / "bad", FOR_EVER, "chat_template.jinja")
    tab = tab_over(tmp_path / "models")
    tab.store.get(tab.library.get("models/bad"))
    stream = asked(tab, "models/bad")
    threading.Timer(0.2, tab.stopped, [event({"run": "1"}), visitor()]).start()
    *_, last = stream
    assert last["note"].endswith("stopped")


def test_store_loads_once_and_shares(tab: ChatTab) -> None:
    model = tab.library.get("models/a")
    assert not tab.store.holds(model)
    models: list = []
    threads = [threading.Thread(target=lambda: models.append(tab.store.get(model))) for _ in "123"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert models[0] is models[1] is models[2]
    assert tab.store.holds(model)


def test_who_leaves_does_not_wait_for_a_model_that_loads(tab: ChatTab) -> None:
    model, stop = tab.library.get("models/b"), threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        tab.store.get(model, stop)
    assert tab.store.get(model, threading.Event()).context == 64, "it was loaded nevertheless"


def test_store_drops_the_least_recently_used(models: Path) -> None:
    library = Library([models])
    a, b = library.get("models/a"), library.get("models/b")
    size = ModelStore(2**30).size_bytes(a)
    store = ModelStore(int(size * 1.5), "cpu")
    store.get(a)
    store.get(b)
    assert (store.holds(a), store.holds(b)) == (False, True)


def test_of_a_model_above_the_budget_a_part_stays_on_disk_and_the_answer_is_the_same() -> None:
    size = ModelStore(2**30).size_bytes(Library([]).get("demo:add"))
    answers = {}
    for budget in (size, size // 2):
        tab = tab_over(None, budget)
        drawn = list(asked(tab, "demo:add", "What is 37 + 45?"))
        answers[budget] = drawn[-1]["text"], " ".join(answer["note"] for answer in drawn)
        held = tab.store.get(tab.library.get("demo:add")).size_bytes
        assert (held < size // 2) == (budget < size)
    assert answers[size][0] == answers[size // 2][0] == "82"
    place = "on disk (read for every token); a larger --chat-gib holds more"
    assert place not in answers[size][1]
    assert answers[size // 2][1].count(place) >= 2, "while it thinks, and beneath the answer"


def test_store_refuses_what_never_fits(models: Path) -> None:
    with pytest.raises(NotEnoughSpace, match=r"largest tensor .*--chat-gib"):
        ModelStore(10, "cpu").get(Library([models]).get("models/a"))
