"""The Chat tab's handlers and the two stores behind them."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from merging.errors import Cancelled, NotEnoughSpace
from tests.chat_models import make_chat_model
from tests.merging.trial.folders import changed
from tests.merging.trial.test_confined import FOR_EVER
from tests.merging.trial.test_model import beyond_the_rows
from ui.chat import Asked, ChatTab, first_models
from ui.chat_view import COLUMNS, how
from ui.library import Library
from ui.store import ModelStore
from ui.talks import Talk, Talks

GREEDY = (0, 1, 12, 0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat") / "models"
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    other = {"max_position_embeddings": 64, "eos_token_id": None, "initializer_range": 0.02}
    for seed, name in enumerate(("a", "b")):
        make_chat_model(root / name, seed=seed, **shape, **other)
    return root


@pytest.fixture
def tab(models: Path) -> ChatTab:
    return ChatTab(None, Library([models]), ModelStore(2**30, "cpu"), Talks())  # type: ignore


def visitor(name: str = "me"):
    return SimpleNamespace(session_hash=name)


def run(tab: ChatTab, number: int, asked: Asked, who=None, knobs=GREEDY) -> list[dict]:
    return list(tab.streamed(number, asked, knobs, who or visitor()))


def test_one_question_two_answers(tab: ChatTab) -> None:
    asked, _, problem, *columns = tab.asked("Hi", ["models/a", "models/b"], visitor())
    assert problem == ""
    assert [column["turns"][0]["note"] for column in columns[:2]] == ["waiting", "waiting"]
    for number, name in enumerate(("models/a", "models/b")):
        *_, last = run(tab, number, asked)
        assert last["name"] == name
        assert last["turns"][0]["state"] == "over"
        assert "token" in last["turns"][0]["note"]
        assert last["rate"].endswith("tokens/s")


def test_column_without_a_model_does_nothing(tab: ChatTab) -> None:
    asked = tab.asked("Hi", ["models/a"], visitor())[0]
    assert len(run(tab, 3, asked)) == 1
    assert len(run(tab, 0, Asked())) == 1


@pytest.mark.parametrize(
    ("question", "chosen", "message"),
    [
        ("", ["models/a"], "Write a question"),
        (" \n", ["models/a"], "Write a question"),
        (None, ["models/a"], "Write a question"),
        ("x" * 8001, ["models/a"], "8000 are the most"),
        ("Hi", [], "Choose at least one"),
    ],
)
def test_useless_questions_ask_nobody(tab: ChatTab, question, chosen, message) -> None:
    asked, box, problem, *_ = tab.asked(question, chosen, visitor())
    assert asked == Asked()
    assert box == (question or "").strip(), "what was typed comes back"
    assert message in problem


def test_too_long_for_one_model_fails_in_its_column(tab: ChatTab) -> None:
    asked = tab.asked("7" * 100, ["models/a"], visitor())[0]
    *_, last = run(tab, 0, asked)
    assert last["turns"][0]["state"] == "failed"
    assert "at most 63" in last["turns"][0]["note"]


def test_stop_before_it_begins(tab: ChatTab) -> None:
    asked = tab.asked("Hi", ["models/a"], visitor())[0]
    column = tab.stopped(0, ["models/a"], visitor())
    assert column["turns"][0]["note"] == "stopped", "at once, whatever its stream waits for"
    *_, last = run(tab, 0, asked)
    assert last["turns"][0]["note"] == "stopped"


def test_new_question_stops_the_answer_before(tab: ChatTab) -> None:
    talk = Talk()
    talk.ask("one")
    before = talk.stop
    talk.ask("two")
    assert before.is_set()
    assert not talk.stop.is_set()
    assert talk.turns[0].note == "stopped"


def test_context_holds_answered_questions_only() -> None:
    talk = Talk()
    first = talk.ask("one")
    first.state, first.answer = "over", "1"
    failed = talk.ask("two")
    failed.state = "failed"
    third = talk.ask("three")
    assert [m["content"] for m in talk.messages(third)] == ["one", "1", "three"]


def test_visitors_do_not_see_each_other(tab: ChatTab) -> None:
    tab.asked("secret", ["models/a"], visitor("one"))
    _, _, *updates = tab.chose(["models/a"], visitor("two"))
    assert updates[COLUMNS]["turns"] == []


def test_leaving_stops_and_forgets(tab: ChatTab) -> None:
    tab.asked("Hi", ["models/a"], visitor())
    talk = tab.talks.get("me", "models/a")
    tab.leave(visitor())
    assert talk.stop.is_set()
    assert tab.talks.get("me", "models/a").turns == []


def test_defect_is_logged_not_shown(tab: ChatTab, monkeypatch, caplog) -> None:
    asked = tab.asked("Hi", ["models/a"], visitor())[0]
    monkeypatch.setattr(tab.store, "get", lambda model, stop: 1 / 0)
    *_, last = run(tab, 0, asked)
    assert "log id" in last["turns"][0]["note"]
    assert "ZeroDivisionError" in caplog.text


def test_abandoned_answer_is_marked_stopped(tab: ChatTab) -> None:
    asked = tab.asked("Hi", ["models/a"], visitor())[0]
    stream = tab.streamed(0, asked, GREEDY, visitor())
    next(stream)
    stop = tab.talks.get("me", "models/a").stop
    stream.close()
    assert stop.is_set()


def test_four_columns_at_most(tab: ChatTab) -> None:
    group, _, *rest = tab.chose(
        ["models/a", "models/b", "demo:base", "demo:add", "demo:sort"], visitor()
    )
    assert group["value"] == ["models/a", "models/b", "demo:base", "demo:add"]
    assert [box["visible"] for box in rest[:COLUMNS]] == [True] * 4


def test_unknown_models_are_refused(tab: ChatTab) -> None:
    asked, _, problem, *_ = tab.asked("Hi", ["/etc/passwd"], visitor())
    assert asked == Asked()
    assert "/etc/passwd is no longer there" in problem


def test_merged_model_stands_beside_its_sources(tab: ChatTab) -> None:
    update = tab.beside("models/b", ("demo:base", "models/a"))
    assert update["value"] == ["demo:base", "models/a", "models/b"]


def test_first_models_are_on_offer(tab: ChatTab) -> None:
    chosen = first_models(tab.library)
    assert 2 <= len(chosen) <= COLUMNS
    assert all(tab.library.get(name) for name in chosen)


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
    tab = ChatTab(None, Library([bad.parent]), ModelStore(2**30, "cpu"), Talks())  # type: ignore
    asked = tab.asked("hello <y>", ["models/bad", "models/good"], visitor())[0]
    for number, state in ((0, "failed"), (1, "over")):
        *_, last = run(tab, number, asked)
        assert last["turns"][0]["state"] == state
        assert (reason in last["turns"][0]["note"]) == (state == "failed")


def test_stop_reaches_a_template_without_end(models: Path, tmp_path: Path) -> None:
    changed(tmp_path / "models" / "bad", FOR_EVER, "chat_template.jinja")
    library = Library([tmp_path / "models"])
    tab = ChatTab(None, library, ModelStore(2**30, "cpu"), Talks())  # type: ignore
    tab.store.get(library.get("models/bad"))
    asked = tab.asked("Hi", ["models/bad"], visitor())[0]
    stream, talk = tab.streamed(0, asked, GREEDY, visitor()), tab.talks.get("me", "models/bad")
    threading.Timer(0.2, talk.halt).start()
    *_, last = stream
    assert last["turns"][0]["note"].endswith("stopped")


def test_store_drops_the_least_recently_used(models: Path) -> None:
    library = Library([models])
    a, b = library.get("models/a"), library.get("models/b")
    size = ModelStore(2**30).size_bytes(a)
    store = ModelStore(int(size * 1.5), "cpu")
    store.get(a)
    store.get(b)
    assert (store.holds(a), store.holds(b)) == (False, True)


def test_of_a_model_above_the_budget_a_part_stays_on_disk_and_the_answer_is_the_same() -> None:
    library = Library([])
    size = ModelStore(2**30).size_bytes(library.get("demo:add"))
    answers = {}
    for budget in (size, size // 2):
        tab = ChatTab(None, library, ModelStore(budget, "cpu"), Talks())  # type: ignore
        asked = tab.asked("What is 37 + 45?", ["demo:add"], visitor())[0]
        notes = [drawn["turns"][0] for drawn in run(tab, 0, asked)]
        answers[budget] = notes[-1]["answer"], " ".join(turn["note"] for turn in notes)
        held = tab.store.get(library.get("demo:add")).size_bytes
        assert (held < size // 2) == (budget < size)
    assert answers[size][0] == answers[size // 2][0] == "82"
    place = "on disk (read for every token); a larger --chat-gib holds more"
    assert place not in answers[size][1]
    assert answers[size // 2][1].count(place) >= 2, "while it thinks, and beneath the answer"


def test_store_refuses_what_never_fits(models: Path) -> None:
    with pytest.raises(NotEnoughSpace, match=r"largest tensor .*--chat-gib"):
        ModelStore(10, "cpu").get(Library([models]).get("models/a"))


def test_clearing_ends_what_is_being_written(tab: ChatTab) -> None:
    asked = tab.asked("Hi", ["models/a"], visitor())[0]
    stream = tab.streamed(0, asked, (0, 1, 40, 0), visitor())
    next(stream)
    tab.cleared(["models/a"], visitor())
    (last,) = stream
    assert last["turns"] == [], "nothing is drawn over the cleared column"


def test_a_model_that_leaves_is_stopped_and_the_others_go_on(tab: ChatTab) -> None:
    asked = tab.asked("Hi", ["models/a", "models/b"], visitor())[0]
    first, second = (tab.streamed(n, asked, (0, 1, 40, 0), visitor()) for n in (0, 1))
    next(first)
    next(second)
    _, _, *updates = tab.chose(["models/b", "demo:base"], visitor())
    assert list(first) == []
    turn = tab.talks.get("me", "models/a").turns[0]
    assert (turn.state, turn.note) == ("over", "stopped")
    assert [box["visible"] for box in updates[:COLUMNS]] == [True, True, False, False]
    assert updates[COLUMNS]["name"] == "demo:base"  # in the column that became free
    *_, last = second
    assert last["name"] == "models/b"
    assert "stopped" not in last["turns"][0]["note"]


def test_columns_stay_where_they_are_until_they_are_needed() -> None:
    talks = Talks()
    arrange = lambda *models: talks.arrange("me", models, 3)  # noqa: E731
    assert arrange("a", "b", "c") == ("a", "b", "c")
    assert arrange("c", "b") == ("", "b", "c")
    assert arrange("b", "c", "d") == ("d", "b", "c")
    assert arrange() == ("", "", "")
    assert talks.column("me", 0) == ""


def test_clearing_takes_the_complaint_away(tab: ChatTab) -> None:
    complaint, *columns = tab.cleared(["models/a"], visitor())
    assert complaint == ""
    assert columns[0]["turns"] == []


def test_models_asked_together_share_a_mark(tab: ChatTab) -> None:
    tab.asked("Hi", ["models/a"], visitor())
    _, _, _, one, other, *_ = tab.asked("Ho", ["models/a", "models/b"], visitor())
    assert one["turns"][1]["mark"] == other["turns"][0]["mark"]
    assert one["turns"][0]["mark"] != one["turns"][1]["mark"]


def test_a_model_that_is_gone_is_said_and_the_question_kept(tab: ChatTab) -> None:
    asked, box, problem, *_ = tab.asked("Hi", ["models/a", "models/<gone>"], visitor())
    assert (asked, box) == (Asked(), "Hi")
    assert "models/&lt;gone&gt; is no longer there" in problem
    group, complaint, *_ = tab.chose(["models/a", "models/gone"], visitor())
    assert (group["value"], complaint) == (["models/a"], "")
    assert run(tab, 0, Asked("Hi", ("models/gone",))) == [gr.skip()]


def test_sampling_is_named_in_its_heading() -> None:
    assert how(0).endswith("greedy")
    assert how(0.7).endswith("temperature 0.7")
