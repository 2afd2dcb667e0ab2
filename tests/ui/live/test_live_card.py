"""The live card: prompts read, tables drawn, and the built-in family answering from memory."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from merging import recipe as recipes
from merging.trial.chat import ChatModel
from ui.library import Library
from ui.live import LivePages, LiveTab, board, probes
from ui.live.board import Column
from ui.live.probes import Probe
from ui.store import ModelStore

RECIPE = """
merge_method: task_arithmetic
base_model: demo:base
models:
- model: demo:add
- model: demo:sort
parameters: {weight: WEIGHT}
"""
TASKS = "What is 28 + 83? => 111\nSort these digits: 3 2 4 8 => 2 3 4 8"


def recipe_of(weight: float) -> str:
    return RECIPE.replace("WEIGHT", str(weight))


def visitor(name: str) -> SimpleNamespace:
    return SimpleNamespace(session_hash=name)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> LiveTab:
    library = Library((tmp_path_factory.mktemp("models"),))
    pages, store = LivePages(1 << 30, "cpu"), ModelStore(1 << 30, "cpu")
    return LiveTab(None, library, pages, store, per_skill=4)


def last(card: LiveTab, weight: float, text: str = TASKS, page: str = "page") -> str:
    return list(card.changed(True, text, recipe_of(weight), visitor(page)))[-1]


def row(html: str, head: str) -> list[str]:
    """The cells of a table's row as text."""
    (cells,) = re.findall(rf'<th scope="row">{re.escape(head)}</th>(.*?)</tr>', html)
    return [re.sub("<.*?>", " ", cell).split() for cell in re.findall(r"<td>(.*?)</td>", cells)]


def test_prompts_are_lines_and_answers_stand_behind_an_arrow() -> None:
    text = "What is 1 + 1? => 2\n\n  Hello  \nA => b => c\n=> nothing asked\nno answer =>"
    assert probes.read(text) == [
        Probe("What is 1 + 1?", "2"),
        Probe("Hello"),
        Probe("A", "b => c"),
        Probe("no answer"),
    ]
    assert len(probes.read("x\n" * 100)) == probes.MOST
    assert probes.read("") == []
    assert len(probes.read("y" * 10_000)[0].prompt) == probes.LONGEST


def test_the_first_prompts_are_one_per_skill_of_the_models() -> None:
    assert len(probes.read(probes.first_probes(["demo:base", "demo:sort", "demo:add"]))) == 2
    assert all(p.answer for p in probes.read(probes.first_probes(["demo:add"])))
    assert probes.first_probes(["models/mine"]) == "Hello! Who are you?"


def test_what_models_write_is_data() -> None:
    columns = [Column("<b>", {"<i>": "<script>"}), Column("base", {"<i>": "x"})]
    html = board.drawn("<u>", [Probe("<i>", "<script>")], [], columns)
    assert not re.search("<(script|u|b)>", html)
    assert "&lt;script&gt;" in html
    assert 'aria-label="right"' in html


def test_an_answer_unlike_the_bases_is_marked() -> None:
    columns = [Column("Live", {"a": "new", "b": "old"}), Column("base", {"a": "old", "b": "old"})]
    html = board.drawn("", [Probe("a"), Probe("b")], [], columns)
    assert html.count("<mark>") == 1
    assert "<mark>new</mark>" in html


def test_the_merge_answers_beside_its_sources_and_is_scored(card) -> None:
    html = last(card, 0.9)
    live, base, add, sort = row(html, "What is 28 + 83?")
    assert add == ["111", "✓"]
    assert base[-1] == sort[-1] == "✗"
    assert row(html, "add")[2][0] == "100%"
    assert row(html, "add")[1][0] == "0%"
    assert re.search(r"39 tensors rewritten in \d+ ms", html)
    assert live


def test_another_weight_answers_otherwise_from_the_same_memory(card) -> None:
    nothing = last(card, 0.0, page="other")
    live, base, *_ = row(nothing, "What is 28 + 83?")
    assert live == base
    network = card.pages._models["other"][1].chat.model.network
    whole = last(card, 1.0, page="other")
    assert row(whole, "What is 28 + 83?")[0] != base
    assert card.pages._models["other"][1].chat.model.network is network


def test_two_pages_have_models_of_their_own(card) -> None:
    one, two = last(card, 0.0, page="one"), last(card, 1.0, page="two")
    assert row(one, "add")[0] != row(two, "add")[0]
    again = last(card, 0.0, page="one")
    assert row(again, "add")[0] == row(one, "add")[0]
    assert "is that of these settings already" in again


def test_what_was_said_holds_until_a_value_changes(card) -> None:
    last(card, 0.6, page="same")
    said = card.said["same"].column
    last(card, 0.6, TASKS + "\nHello", page="same")
    assert card.said["same"].column is said
    assert "Hello" in said.answers
    last(card, 0.7, page="same")
    assert card.said["same"].column is not said


def test_switched_off_its_memory_is_free(card) -> None:
    last(card, 0.5, page="off")
    card.switched(False, visitor("off"))
    assert "off" not in card.pages._models
    assert all(isinstance(s, dict) for s in card.changed(False, "", "", visitor("off")))


def test_a_newer_recipe_ends_the_work_on_an_older_one(card) -> None:
    older = card.changed(True, TASKS, recipe_of(0.3), visitor("busy"))
    next(older)
    newer = threading.Thread(target=last, args=(card, 0.7, TASKS, "busy"))
    newer.start()
    rest = list(older)
    newer.join()
    assert len(rest) < 4


def test_what_cannot_be_merged_is_said_in_its_place(card) -> None:
    (said,) = card.changed(True, "", "# density is too large\n", visitor("page"))
    assert said == '<p class="quiet" role="status">density is too large</p>'
    text = recipe_of(1.0).replace("demo:sort", "demo:sorts")
    (said,) = card.changed(True, "", text, visitor("page"))
    assert "did you mean demo:sort?" in said


def test_what_has_no_room_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    pages = LivePages(1000, "cpu")
    card = LiveTab(None, Library((tmp_path,)), pages, ModelStore(1000, "cpu"))
    (said,) = card.changed(True, TASKS, recipe_of(1.0), visitor("page"))
    assert re.search(r"base needs .* of memory and --chat-gib allows .*; start the app with", said)
    assert not pages._models


def test_the_least_recently_used_is_let_go_of(tmp_path: Path) -> None:
    recipe = Library((tmp_path,)).resolved(recipes.parse(recipe_of(1.0)))
    size = ChatModel.load(Library((tmp_path,)).get("demo:base").folder, "cpu").size_bytes
    pages = LivePages(2 * size, "cpu")
    for page in ("a", "b", "a", "c"):
        pages.get(page, recipe)
    assert list(pages._models) == ["a", "c"]
    alone = LivePages(1, "cpu")
    assert alone.get("a", recipe) is alone.get("a", recipe)
