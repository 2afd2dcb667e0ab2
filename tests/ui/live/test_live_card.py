"""The live card: prompts read, bars and answers drawn, the built-in family heard from memory."""

from __future__ import annotations

import gc
import re
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from merging import recipe as recipes
from merging.checkpoints import fingerprint, open_checkpoint
from merging.run.merge import merge
from merging.trial.chat import ChatModel
from merging.trial.tasks import TaskFileError
from ui.library import Library
from ui.live import LivePages, LiveTab, marks, meters, pinning, probes, replies, skills
from ui.live.columns import Beside, Column
from ui.live.probes import Probe
from ui.live.scene import Scene
from ui.live.skills import Skill
from ui.room import Room
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
BASE = "demo:base"


def recipe_of(weight: float) -> str:
    return RECIPE.replace("WEIGHT", str(weight))


def visitor(name: str) -> SimpleNamespace:
    return SimpleNamespace(session_hash=name)


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> LiveTab:
    library = Library((tmp_path_factory.mktemp("models"),))
    pages, store = LivePages(1 << 30, "cpu"), ModelStore(1 << 30, "cpu")
    return LiveTab(None, library, pages, store, per_skill=4)


def heard(
    card: LiveTab,
    weight: float,
    text: str = TASKS,
    page: str = "page",
    *,
    family: str = BASE,
    asked: str = "",
    own: tuple[Skill, ...] = (),
    kept: object = None,
    held: object = None,
):
    """All that the card shows one after the other."""
    recipe = recipe_of(weight)
    yield from card.changed(True, text, family, kept, asked, own, recipe, held, visitor(page))


def last(card: LiveTab, weight: float, text: str = TASKS, page: str = "page", **more) -> list:
    return list(heard(card, weight, text, page, **more))[-1]


def in_table(board: list, model: str, skill: str) -> list[str]:
    """The words of the table's cell: a score and its interval."""
    heads = re.findall(r'<th scope="col">(.*?)</th>', board[0])
    (cells,) = re.findall(rf'<th scope="row">{re.escape(model)}</th>(.*?)</tr>', board[0])
    cell = re.findall(r"<td>(.*?)</td>", cells)[heads.index(skill) - 1]
    return re.sub("<.*?>", " ", cell).split()


def answers(board: list, prompt: str) -> dict[str, list[str]]:
    """What models answer to a prompt, as text."""
    (block,) = re.findall(
        rf'<section[^>]* aria-label="{re.escape(prompt)}">(.*?)</section>', board[1]
    )
    rows = re.findall(r"<dt>(.*?)</dt>(.*?)</div>", block)
    return {
        re.sub("<.*?>", " ", name).split()[-1]: re.sub("<.*?>", " ", said).split()
        for name, said in rows
    }


def test_prompts_are_lines_and_answers_stand_behind_an_arrow() -> None:
    text = "What is 1 + 1? => 2\n\n  Hello  \nA => b => c\n=> nothing asked\nno answer =>"
    assert probes.read(text) == [
        Probe("What is 1 + 1?", "2"),
        Probe("Hello"),
        Probe("A", "b => c"),
        Probe("no answer"),
    ]
    assert probes.read("x\n" * 100) == [Probe("x")]
    assert len(probes.read("\n".join(map(str, range(100))))) == probes.MOST
    assert probes.read("") == []
    assert len(probes.read("y" * 10_000)[0].prompt) == probes.LONGEST


def test_the_first_prompts_are_one_per_skill_of_the_models() -> None:
    assert len(probes.read(probes.first_probes(["demo:base", "demo:sort", "demo:add"]))) == 2
    assert all(p.answer for p in probes.read(probes.first_probes(["demo:add"])))
    assert probes.first_probes(["models/mine"]) == "Hello! Who are you?"


def test_a_question_is_asked_besides_what_is_pinned_until_it_is() -> None:
    assert probes.with_asked("A", "B\nmore => 2") == [Probe("A"), Probe("B more", "2", False)]
    assert probes.with_asked("A => 1", "A") == [Probe("A", "1")]
    pinned = pinning.pin("A => 1", BASE, {"other": "x"}, "B => 2")
    assert pinned == ("A => 1\nB => 2", "", {"other": "x", BASE: "A => 1\nB => 2"})
    text, _, kept = pinning.unpin(pinned[0], BASE, pinned[2], event("A"))
    assert (text, kept[BASE]) == ("B => 2", "B => 2")
    full = "\n".join(map(str, range(probes.MOST)))
    assert pinning.pin(full, BASE, None, "one more")[:2] == (full, "one more")


def event(prompt: str) -> SimpleNamespace:
    return SimpleNamespace(_data={"prompt": prompt})


def test_what_the_browser_remembers_is_bounded_and_by_base() -> None:
    kept = {str(number): "x" for number in range(50)}
    kept = pinning.edited("mine", "base", kept)
    assert len(kept) <= 20
    assert kept["base"] == "mine"
    assert pinning.of_base(kept, ["base"]) == "mine"
    assert pinning.of_base({"base": 3}, ["base"]) == "Hello! Who are you?"
    assert pinning.of_base("nonsense", ["base"]) == "Hello! Who are you?"


def test_the_expert_of_a_prompt_is_known_by_its_wording() -> None:
    models = ["demo:add", "demo:sort"]
    assert Probe("What is 37 + 45?").expert_of(models) == "demo:add"
    assert Probe("Sort these digits: 3 2").expert_of(models) == "demo:sort"
    assert Probe("Reverse silver").expert_of(models) == ""
    assert Probe("What is love?").expert_of(models) == ""


@pytest.mark.parametrize(
    ("text", "before", "new"),
    [
        ("revsli", "revlis", ["s"]),
        ("the cat sat", "the dog sat", ["cat"]),
        ("same", "same", []),
        ("ab", "abc", ["ab"]),
        ("1 2 3", "", ["1 2 3"]),
        ("a new day", "one old day", ["a new"]),
    ],
)
def test_what_is_new_in_an_answer_is_marked(text: str, before: str, new: list[str]) -> None:
    assert re.findall("<mark>(.*?)</mark>", marks.marked(text, before)) == new


def test_what_models_write_is_data() -> None:
    live = Column("live", answers={"<i>": "<script>"}, before=Column("", answers={"<i>": "<u>"}))
    base = Column("<b>", "<b>", answers={"<i>": "x"})
    skill = Skill("<s>", "file", ())
    live.scores[skill] = {"score": 0.5, "low": 0.1, "high": 0.9, "n": 2}
    scene = Scene(status="<u>", probes=[Probe("<i>", "<script>")], skills=[skill], live=live)
    scene.sources = [base]
    html = meters.drawn(scene) + replies.drawn(scene)
    assert not re.search('<(script|u|s)[ >]|"<i>"', html)
    assert "&lt;" in html
    assert 'aria-label="right"' in html


def score(share: float) -> dict[str, float]:
    return {"score": share, "low": share / 2, "high": (1 + share) / 2, "n": 50}


def test_a_bar_says_score_interval_expert_base_and_change() -> None:
    skill = Skill("add")
    live = Column("live", scores={skill: score(0.5)})
    live.before = Column("live", scores={skill: score(0.42)})
    sources = [
        Column("base", BASE, scores={skill: score(0.02)}),
        Column("add", "demo:add", "#0072B2", "●", scores={skill: score(0.98)}),
    ]
    html = meters.drawn(Scene(skills=[skill], live=live, sources=sources, per_skill=50))
    assert 'role="meter"' in html
    assert 'aria-valuenow="50"' in html
    assert (
        "95\u202f% interval 25\u202f% to 75\u202f%; its expert 98\u202f%; the base 2.0\u202f%"
        in html
    )
    assert "8 points" in html
    assert 'class="fill" style="width: 50.0%"' in html
    assert 'class="interval" style="left: 25.0%; width: 50.0%"' in html
    assert 'class="tick expert" style="left: 98.0%"' in html
    assert 'class="tick base" style="left: 2.0%"' in html
    assert "--tone: #0072B2" in html
    assert ">+8</small>" in html


def test_the_other_of_two_settings_stands_beside_the_merge() -> None:
    skill, probe = Skill("add"), Probe("1 + 1?", "2")
    live = Column("live", scores={skill: score(0.5)}, answers={probe.prompt: "2"})
    other = Column("live", scores={skill: score(0.54)}, answers={probe.prompt: "3"})
    scene = Scene(skills=[skill], probes=[probe], live=live, sources=[Column("base", BASE)])
    scene.beside = Beside("B", other)
    bars, said = meters.drawn(scene), replies.drawn(scene)
    assert 'class="tick beside" style="left: 54.0%"' in bars
    assert "B 54\u202f%</span>" in bars
    assert re.search('aria-valuetext="[^"]*; B 54\u202f%"', bars)
    assert '<th scope="row">B</th>' in bars
    assert answers([bars, said], probe.prompt)["B"][:2] == ["3", "(differs;"]
    assert '<mark>3</mark><span class="sr-only"> (differs; live: 2)' in said


def test_a_side_that_was_never_asked_says_so() -> None:
    scene = Scene(skills=[Skill("add")], probes=[Probe("Hi")], sources=[Column("base", BASE)])
    scene.beside = Beside("B")
    assert "B not asked yet" in meters.drawn(scene)
    assert answers(["", replies.drawn(scene)], "Hi")["B"] == ["not", "asked", "yet"]


def test_what_the_other_side_said_is_remembered_and_holds_once_it_is_back(tmp_path: Path) -> None:
    pages, store = LivePages(1 << 30, "cpu"), ModelStore(1 << 30, "cpu")
    both = {"A": recipes.parse(recipe_of(0.9)), "B": recipes.parse(recipe_of(0.4))}
    library = Library((tmp_path,))
    card = LiveTab(None, library, pages, store, per_skill=4, sides=lambda held: held or {})
    alone = last(card, 0.9)
    assert "B" not in answers(alone, "What is 28 + 83?")
    assert "B not asked yet" in last(card, 0.9, held=both)[0]
    other = last(card, 0.4, held=both)
    said = answers(alone, "What is 28 + 83?")["live"]
    assert answers(other, "What is 28 + 83?")["A"][0] == said[0]
    assert in_table(other, "A", "add") == in_table(alone, "live", "add")
    scored = card.hearing.by("page", card.library.resolved(both["A"])).seconds
    back = last(card, 0.9, held=both)
    assert answers(back, "What is 28 + 83?")["live"][0] == said[0]
    assert card.hearing.said["page"].column.seconds == scored  # to score again takes another time


def test_while_a_merge_is_under_way_no_score_is_shown_as_its() -> None:
    skill = Skill("add")
    live = Column("live", scores={skill: score(0.5)})
    scene = Scene(skills=[skill], live=live, sources=[Column("base", BASE)], is_busy=True)
    html = meters.drawn(scene)
    assert "is-stale" in html
    assert "aria-valuenow" not in html
    assert "50" not in re.sub("<.*?>", "", html.split("live-note")[0])


def test_the_merge_answers_beside_its_sources_and_is_scored(card) -> None:
    board = last(card, 0.9)
    said = answers(board, "What is 28 + 83?")
    assert said["add"] == ["111", "✓"]
    assert said["base"][-1] == said["sort"][-1] == "✗"
    assert said["live"]
    assert in_table(board, "add", "add")[0] == "100"
    assert in_table(board, "base", "add")[0] == "0"
    assert re.search(r"Re-merged in \d+ ms \(39 tensors\) · not saved", board[0])


def test_another_weight_answers_otherwise_from_the_same_memory(card) -> None:
    nothing = answers(last(card, 0.0, page="other"), "What is 28 + 83?")
    assert nothing["live"] == nothing["base"]
    network = card.pages._models["other"][1].chat.model.network
    board = last(card, 1.0, page="other")
    assert answers(board, "What is 28 + 83?")["live"] != nothing["base"]
    assert card.pages._models["other"][1].chat.model.network is network
    assert "<mark>" in board[1]
    assert re.search(r'<small class="up">\+\d+</small>', board[0])


def test_another_base_has_prompts_of_its_own(card) -> None:
    shown = list(heard(card, 0.5, "Mine", "family", family="other", kept={BASE: "Sort 3 1"}))
    assert shown[0][3:5] == ["Sort 3 1", BASE]
    assert all(isinstance(values[3], dict) for values in shown[1:])  # typed meanwhile: it stays
    assert "Sort 3 1" in shown[-1][1]
    assert "Mine" not in shown[-1][1]


def test_a_question_is_answered_and_offers_to_be_pinned(card) -> None:
    board = last(card, 0.5, page="ask", asked="What is 2 + 3? => 5")
    assert 'data-event="pin" data-prompt="What is 2 + 3?"' in board[1]
    assert 'data-event="unpin" data-prompt="What is 28 + 83?"' in board[1]
    assert set(answers(board, "What is 2 + 3?")) == {"base", "add", "live", "sort"}


def test_own_tasks_are_scored_beside_the_built_in_skills(card, tmp_path) -> None:
    file = tmp_path / "mine.jsonl"
    lines = ['{"domain": "echo", "prompt": "What is 2 + 3?", "answer": "5"}'] * 3
    file.write_text("\n".join(lines))
    own, said, shown = card.tasks_opened(str(file), ())
    assert said == "mine.jsonl: 3 prompts of 1 skill."
    assert shown["visible"]
    board = last(card, 1.0, page="own", own=own)
    assert in_table(board, "live", "echo")
    assert in_table(board, "live", "add")


def test_a_wrong_task_file_is_named_and_changes_nothing(card, tmp_path) -> None:
    file = tmp_path / "wrong.jsonl"
    file.write_text('{"domain": "x", "prompt": "p"}\n')
    own, said, _ = card.tasks_opened(str(file), ())
    assert isinstance(own, dict)
    assert said == "wrong.jsonl, line 1: &quot;answer&quot; is missing"
    line = '{"domain": "%d", "prompt": "p", "answer": "a"}'
    file.write_text("\n".join(line % number for number in range(20)))
    with pytest.raises(TaskFileError, match="20 domains and the card shows 8"):
        skills.of_file(file, "wrong.jsonl")


def test_two_pages_have_models_of_their_own(card) -> None:
    one, two = last(card, 0.0, page="one"), last(card, 1.0, page="two")
    assert in_table(one, "live", "add") != in_table(two, "live", "add")
    again = last(card, 0.0, page="one")
    assert in_table(again, "live", "add") == in_table(one, "live", "add")
    assert re.search("Re-merged in .* tensors", again[0])  # the last merge that changed anything


def test_what_was_said_holds_until_a_value_changes(card) -> None:
    last(card, 0.6, page="same")
    said = card.hearing.said["same"].column
    last(card, 0.6, TASKS + "\nHello", page="same")
    assert card.hearing.said["same"].column is said
    assert "Hello" in said.answers
    last(card, 0.7, page="same")
    assert card.hearing.said["same"].column is not said


def kept(card: LiveTab, name: str, weight: float, page: str = "page") -> list:
    return list(card.keeper.kept(name, recipe_of(weight), visitor(page)))


def test_what_answers_is_kept_and_on_offer_at_once(card) -> None:
    board = last(card, 0.8, page="keep")
    said, _, to_chat, (model, sources), free, _ = kept(card, "mine", 0.8, "keep")[-1]
    assert "Kept as <b>mine</b>" in said
    assert to_chat["visible"]
    assert sources == ("demo:base", "demo:add", "demo:sort")
    assert free == "mine-2"
    folder = card.library.get(model).folder
    digest = fingerprint(open_checkpoint(folder))
    assert digest[:19] in said
    assert digest in last(card, 0.8, page="keep")[0]  # the same in memory
    result = merge(card.library.resolved(recipes.parse(recipe_of(0.8))), folder.parent / "written")
    assert result.fingerprint == digest
    assert "not saved" in board[0]
    assert "kept as mine" in card.noted(visitor("keep"))
    assert "not saved" in last(card, 0.9, page="keep")[0]


def test_a_keep_after_a_change_says_what_it_kept(card) -> None:
    last(card, 0.8, page="later")
    (*_, (said, *_)) = kept(card, "earlier", 0.4, "later")
    assert "The settings have changed since; this is what answered." in said


def test_what_cannot_be_kept_is_said(card) -> None:
    last(card, 0.8, page="wrong")
    (said, *_) = kept(card, "no/name", 0.8, "wrong")[-1]
    assert "a name has 1 to 64 letters" in said
    kept(card, "taken", 0.8, "wrong")
    (said, *_) = kept(card, "taken", 0.8, "wrong")[-1]
    assert "taken is taken; taken-2 is free" in said
    (said, *_) = kept(card, "x", 0.8, "nobody")[-1]
    assert "Nothing is merged in memory yet" in said


def test_switched_off_its_memory_is_free(card) -> None:
    last(card, 0.5, page="off")
    kept(card, "off", 0.5, "off")
    network = weakref.ref(card.pages.of("off").chat.model.network)
    card.switched(False, visitor("off"))
    gc.collect()
    assert network() is None
    (nothing,) = card.changed(False, "", "", None, "", (), "", None, visitor("off"))
    assert all(isinstance(value, dict) for value in nothing)


class Crowded(LivePages):
    """Pages on a machine whose memory other loaded models take up."""

    def needs(self, recipe):
        need = super().needs(recipe)
        return replace(need, free=need.total - self.room.held_bytes(but=("live", "crowd")))


def test_other_models_are_let_go_of_where_that_makes_room(tmp_path: Path) -> None:
    room = Room(1 << 30)
    store = ModelStore(room, "cpu")
    card = LiveTab(None, Library((tmp_path,)), Crowded(room, "cpu"), store, per_skill=4)
    other = card.library.get("demo:sort")
    store.get(other)
    shown = last(card, 0.5, page="crowd")
    assert re.search(r"needs .* are free; other loaded models hold .*: let go of them", shown[0])
    assert shown[2]["visible"]
    assert store.holds(other)
    card.let_go_of_others(visitor("crowd"))
    assert not store.holds(other)
    first = next(heard(card, 0.5, page="crowd"))
    assert "Loading the base" in first[0]
    assert not first[2]["visible"]


def test_chat_and_live_models_share_one_budget(tmp_path: Path) -> None:
    library = Library((tmp_path,))
    size = ModelStore(1 << 30).size_bytes(library.get("demo:sort"))
    room = Room(int(1.5 * size))
    store, pages = ModelStore(room, "cpu"), LivePages(room, "cpu")
    recipe = library.resolved(recipes.parse(recipe_of(1.0)))
    store.get(library.get("demo:sort"))
    pages.get("page", recipe)
    assert not store.holds(library.get("demo:sort"))
    store.get(library.get("demo:sort"))
    assert pages.of("page") is None


def test_a_newer_recipe_ends_the_work_on_an_older_one(card) -> None:
    older = heard(card, 0.3, page="busy")
    next(older)
    newer = threading.Thread(target=last, args=(card, 0.7, TASKS, "busy"))
    newer.start()
    rest = list(older)
    newer.join()
    assert len(rest) < 4


def test_what_cannot_be_merged_is_said_in_its_place(card) -> None:
    def said(recipe: str) -> str:
        (shown,) = card.changed(True, "", BASE, None, "", (), recipe, None, visitor("page"))
        return shown[0]

    assert 'role="status">density is too large</p>' in said("# density is too large\n")
    assert "did you mean demo:sort?" in said(recipe_of(1.0).replace("demo:sort", "demo:sorts"))


def test_what_has_no_room_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    pages = LivePages(1000, "cpu")
    card = LiveTab(None, Library((tmp_path,)), pages, ModelStore(1000, "cpu"))
    (said,) = heard(card, 1.0)
    assert re.search(r"base needs .* of memory and --chat-gib allows .*; start", said[0])
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
