"""Chat in the browser: answers side by side, one row per question, kept over a reload."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import DESKTOP, PHONE, sideways
from ui.chat.questions import BOUNDS

NOTE_S = 30_000


@pytest.fixture
def talk(shared_page):
    """Chat without a word said, on the page that these tests share."""
    open_chat(shared_page)
    if shared_page.locator(".chat-row").count():
        shared_page.get_by_role("button", name="Clear the conversation").click()
    expect(shared_page.locator(".chat-row")).to_have_count(0)
    shared_page.get_by_label("Show differences from").select_option("")
    choose(shared_page, "demo:base")
    return shared_page


def open_chat(page) -> None:
    page.get_by_role("tab", name="Chat").click()
    page.get_by_placeholder("Ask all of them").wait_for()
    page.locator(".chat-tools select").wait_for()


def choose(page, *names: str) -> None:
    group = page.locator("#chat-models")
    for box in group.get_by_role("checkbox").all():
        box.set_checked(False)
    for name in names:
        group.get_by_role("checkbox", name=name, exact=True).set_checked(True)
    expect(page.locator(".chat-head h3")).to_have_count(len(names))
    for name in names:
        expect(page.get_by_role("heading", name=name, exact=True).first).to_be_visible()


def ask(page, question: str) -> None:
    page.get_by_placeholder("Ask all of them").fill(question)
    page.get_by_role("button", name="Send").click()


def column(page, name: str):
    """The answers of a model, in the order of their questions."""
    return page.locator(f".cell[data-model='{name}']")


def answered(page, *names: str, row: int = -1) -> None:
    """Waits for the answers to a question."""
    for name in names:
        expect(column(page, name).nth(row).locator(".note")).to_contain_text("·", timeout=NOTE_S)


def longest(page, tokens: int) -> None:
    box = page.get_by_label("number input for Longest answer")
    if not box.is_visible():
        page.get_by_role("button", name="How answers are chosen").click()
    box.fill(str(tokens))
    page.keyboard.press("Tab")


def test_three_columns_answer_one_question_in_one_row(talk) -> None:
    choose(talk, "demo:base", "demo:add", "demo:sort")
    ask(talk, "What is 37 + 45?")
    expect(talk.locator(".question")).to_have_text("What is 37 + 45?")
    names = ("demo:base", "demo:add", "demo:sort")
    answered(talk, *names)
    for name in names:
        expect(column(talk, name)).to_have_attribute("aria-busy", "false")
    tops = {round(box["y"]) for box in (column(talk, name).bounding_box() for name in names)}
    assert len(tops) == 1, "answers of one question stand on one line"
    expect(talk.get_by_placeholder("Ask all of them")).to_have_value("")
    assert talk.get_by_text("tokens/s").count() == 3
    told = talk.get_by_role("log", name="Finished answers").locator("p")
    expect(told.filter(has_text="demo:add: 82 (")).to_have_count(1)


def test_next_question_can_be_typed_at_once(talk) -> None:
    ask(talk, "Sort 5 1 4 2")
    ask(talk, "Sort 3 2 1")
    expect(talk.locator(".question")).to_have_text(["Sort 5 1 4 2", "Sort 3 2 1"])
    answered(talk, "demo:base", row=0)
    answered(talk, "demo:base", row=1)
    talk.get_by_placeholder("Ask all of them").fill("Sort 9 8")
    talk.keyboard.press("Shift+Enter")
    talk.keyboard.type("please")
    talk.keyboard.press("Enter")
    expect(talk.locator(".question").last).to_have_text("Sort 9 8\nplease", use_inner_text=True)


def test_an_example_is_one_click(talk) -> None:
    talk.get_by_role("button", name="Reverse silver").click()
    expect(talk.locator(".question")).to_have_text("Reverse silver")
    answered(talk, "demo:base")


def test_markup_of_a_question_is_shown_as_text(talk) -> None:
    markup = "<img src=x onerror=alert(1)><b>bold</b>"
    ask(talk, markup)
    expect(talk.locator(".question")).to_have_text(markup)
    assert talk.locator(".chat-row img, .chat-row b").count() == 0


@pytest.mark.parametrize(
    ("question", "message"), [("   ", "Write a question first"), ("7" * 9000, "8000 are the most")]
)
def test_useless_questions_are_refused_and_stay_where_they_were_typed(
    talk, question: str, message: str
) -> None:
    ask(talk, question)
    expect(talk.locator("#chat-problem")).to_contain_text(message)
    expect(talk.get_by_placeholder("Ask all of them")).to_have_value(question)


def test_too_long_for_the_model_is_said_in_its_cell(talk) -> None:
    choose(talk, "demo:base", "models/quick")
    ask(talk, "9" * 300)
    expect(column(talk, "demo:base")).to_contain_text("reads at most 127", timeout=NOTE_S)
    answered(talk, "models/quick")
    ask(talk, "Sort 3 1 2")
    answered(talk, "demo:base")


def test_clear_begins_anew_and_can_be_undone(talk) -> None:
    ask(talk, "Sort 5 1 4 2")
    answered(talk, "demo:base")
    talk.get_by_role("button", name="Clear the conversation").click()
    expect(talk.get_by_text("No question yet.")).to_be_visible()
    talk.get_by_role("button", name="Undo").click()
    expect(talk.locator(".question")).to_have_text("Sort 5 1 4 2")
    answered(talk, "demo:base")
    expect(talk.get_by_role("button", name="Undo")).to_have_count(0)


def test_four_models_at_most(talk) -> None:
    choose(talk, "demo:base", "demo:add", "demo:sort", "demo:spanish")
    fifth = talk.locator("#chat-models").get_by_role("checkbox", name="demo:reverse")
    fifth.click()
    expect(fifth).not_to_be_checked()
    expect(talk.get_by_text("take one away first")).to_be_visible()
    expect(talk.locator(".chat-head")).to_have_count(4)


def test_differences_are_marked_from_any_column(talk) -> None:
    choose(talk, "demo:base", "demo:add")
    ask(talk, "What is 37 + 45?")
    answered(talk, "demo:base", "demo:add")
    for reference, other in (("demo:base", "demo:add"), ("demo:add", "demo:base")):
        talk.get_by_label("Show differences from").select_option(reference)
        expect(column(talk, other).locator("mark.differs").first).to_be_visible()
        expect(column(talk, reference).locator("mark")).to_have_count(0)


def test_a_later_column_is_asked_earlier_questions(talk) -> None:
    ask(talk, "Sort 5 1 4 2")
    ask(talk, "What is 37 + 45?")
    choose(talk, "demo:base", "demo:add")
    expect(column(talk, "demo:add").first.locator(".note")).to_have_text("not asked")
    talk.get_by_role("button", name="Ask 2 earlier questions: demo:add").click()
    answered(talk, "demo:add", row=0)
    expect(column(talk, "demo:add").nth(1).locator(".answer")).to_have_text("82")


def test_asked_again_an_answer_stands_beside_the_first(talk) -> None:
    ask(talk, "What is 37 + 45?")
    answered(talk, "demo:base")
    column(talk, "demo:base").get_by_role("button", name="Ask again").click()
    expect(column(talk, "demo:base").locator(".place")).to_have_text("2 of 2")
    answered(talk, "demo:base")
    expect(talk.locator("#chat-problem")).to_contain_text("At temperature 0")
    column(talk, "demo:base").get_by_role("button", name="Earlier answer").click()
    expect(column(talk, "demo:base").locator(".place")).to_have_text("1 of 2")


def test_an_edited_question_is_asked_again_and_the_edit_undone(talk) -> None:
    choose(talk, "demo:add")
    for question in ("Sort 5 1 4 2", "Sort 3 2 1"):
        ask(talk, question)
        answered(talk, "demo:add")
    talk.get_by_role("button", name="Edit question 1").click()
    box = talk.get_by_label("Edit the question")
    expect(box).to_be_focused()
    box.fill("What is 37 + 45?")
    box.press("Enter")
    expect(talk.locator(".question")).to_have_text(["What is 37 + 45?"])
    expect(column(talk, "demo:add").locator(".answer")).to_have_text("82")
    expect(talk.locator(".chat-undo")).to_contain_text(
        "Question 1 edited, 1 later question removed"
    )
    talk.get_by_role("button", name="Undo").click()
    expect(talk.locator(".question")).to_have_text(["Sort 5 1 4 2", "Sort 3 2 1"])


NONSENSE = [
    "{",
    "[]",
    '"x"',
    json.dumps({"rows": [1, None, {"id": "1"}, {"id": {}, "question": "q"}], "chosen": "demo"}),
    json.dumps({"rows": {"length": 9}, "undo": {"rows": 7}, "settings": {"seed": "x"}}),
    json.dumps(
        {"rows": [], "undo": 3, "settings": [], "chosen": [["a"], "../../etc", "__proto__"]}
    ),
]
HOSTILE = {
    "chosen": ["demo:add"],
    "rows": [
        {
            "id": "1",
            "question": "<img src=x onerror=alert(1)>",
            "cells": {
                "demo:add": {
                    "shown": 99,
                    "runs": [{"id": "r", "state": "odd", "text": "<b>x</b>"}],
                },
                "__proto__": {"runs": "many"},
            },
        }
    ],
}


def test_nonsense_in_the_browsers_memory_is_nothing_kept(talk) -> None:
    read = """stored => {
      const own = sessionStorage.getItem('amalgam-chat');
      sessionStorage.setItem('amalgam-chat', stored);
      const {rows, undo, chosen, settings} = amalgamChatStore.load();
      sessionStorage.setItem('amalgam-chat', own);
      const texts = (chosen ?? []).every((name) => typeof name === 'string');
      return [rows, undo?.rows ?? [], texts, settings]; }"""
    for stored in NONSENSE:
        rows, undo, chosen, settings = talk.evaluate(read, stored)
        assert (rows, undo, chosen) == ([], [], True), stored
        first = {"temperature": 0, "top_p": 1, "longest": 128, "seed": 0, "system": ""}
        assert settings == first, stored


def test_the_browser_heeds_the_bounds_of_the_server(talk) -> None:
    for extreme, of in ((-1e12, "least"), (1e12, "most"), (None, "first")):
        settings = talk.evaluate(
            "v => amalgamChatStore.readSettings(v)", dict.fromkeys(BOUNDS, extreme)
        )
        assert settings == {
            **{name: getattr(bound, of) for name, bound in BOUNDS.items()},
            "system": "",
        }


def test_what_is_kept_is_bounded_and_the_latest_stays(talk) -> None:
    kept = talk.evaluate(
        """() => {
          const row = (id) => ({id, question: id + "x".repeat(5000), cells: new Map()});
          const rows40 = Array.from({length: 40}, (_, n) => row(`${n} `));
          const state = {rows: rows40, undo: {rows: [row("u")]}};
          const {written, dropped} = amalgamChatStore.packed(state, 60000);
          const rows = JSON.parse(written).rows;
          return [written.length <= 60000, rows.length + dropped, rows.at(-1).id];
        }"""
    )
    assert kept == [True, 40, "39 "]


def test_tokens_of_an_answer_tell_their_probabilities_to_mouse_and_keyboard(talk) -> None:
    choose(talk, "demo:add")
    ask(talk, "What is 37 + 45?")
    answered(talk, "demo:add")
    cell = column(talk, "demo:add")
    cell.get_by_role("button", name="Tokens of demo:add").click()
    tokens = cell.get_by_role("list", name="Tokens of the answer").get_by_role("listitem")
    expect(tokens).to_have_text(["8", "2", "end"])
    for number, name in enumerate(
        (r"^“8” .* %; others: “", r"^“2” .* %;", "^the end of the answer")
    ):
        expect(tokens.nth(number)).to_have_accessible_name(re.compile(name))
    tokens.first.hover()
    expect(talk.locator(".token-tip p")).to_have_count(5)
    expect(talk.locator(".token-tip .is-taken")).to_contain_text("“8”")
    tokens.first.focus()
    talk.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    expect(talk.locator(".token-tip .is-taken")).to_contain_text("“2”")
    talk.keyboard.press("Escape")
    expect(talk.locator(".token-tip")).to_have_count(0)
    cell.get_by_role("button", name="Tokens of demo:add").click()
    expect(cell.locator(".said")).to_have_text("82")


def test_the_live_merge_is_a_column_while_there_is_one(talk) -> None:
    live = talk.get_by_label("Live: hear the merge answer")
    offer = talk.locator("#chat-models").get_by_role("checkbox", name="Live merge")
    expect(offer).to_have_count(0)
    talk.get_by_role("tab", name="Explore").click()
    live.check()
    status = talk.locator("#live-meters").get_by_role("status")
    expect(status).to_contain_text(re.compile("Re-merged in |In memory as"), timeout=60_000)
    open_chat(talk)
    choose(talk, "Live merge", "demo:base")
    ask(talk, "What is 37 + 45?")
    answered(talk, "Live merge", "demo:base")
    talk.get_by_role("tab", name="Explore").click()
    live.uncheck()
    open_chat(talk)
    expect(offer).to_have_count(0)
    expect(talk.locator(".chat-head h3")).to_have_text(["demo:base"])


def test_the_conversation_is_saved_as_markdown_and_as_json(talk) -> None:
    choose(talk, "demo:base", "demo:add")
    ask(talk, "What is 37 + 45?")
    answered(talk, "demo:base", "demo:add")
    files = {}
    for kind in ("Markdown", "JSON"):
        with talk.expect_download() as download:
            talk.get_by_role("button", name=f"Save as {kind}").click()
        files[kind] = Path(download.value.path()).read_text()
    whole = json.loads(files["JSON"])
    assert [column["name"] for column in whole["columns"]] == ["demo:base", "demo:add"]
    (question,) = whole["questions"]
    answer = question["answers"][1]
    assert (question["question"], answer["model"], answer["text"]) == (
        "What is 37 + 45?",
        "demo:add",
        "82",
    )
    assert answer["settings"]["seed"] == 0
    fingerprints = [one["fingerprint"] for one in question["answers"]]
    assert len(set(fingerprints)) == 2
    for part in ("## Question 1", "### demo:add", "```text\n82\n```", "seed 0", *fingerprints):
        assert part in files["Markdown"]


def test_saved_texts_break_out_of_no_fence(talk) -> None:
    written = talk.evaluate(
        """() => {
          const {content, markdown} = amalgamChatExport;
          const settings = {temperature: 0, top_p: 1, longest: 1, seed: 0, system: "Be ``` brief"};
          const run = {text: "<think>hm</think>\\n````\\n# no heading", note: "", settings};
          const cells = new Map([["m", {runs: [run], shown: 0}]]);
          const rows = [{question: "q", order: null, cells}];
          return markdown(content({rows, settings, votes: []}, [], null, "2026-01-02T03:04:05Z"));
        }"""
    )
    assert "`````text\n<think>hm</think>\n````\n# no heading\n`````" in written
    assert "````text\nBe ``` brief\n````" in written


def test_a_model_with_other_tensors_is_another_player(talk) -> None:
    players = talk.evaluate(
        """() => amalgamChatBlind.players([
          {models: ["a", "b"], fingerprints: ["sha256:1111111122", "sha256:5"], choice: "a"},
          {models: ["b", "a"], fingerprints: ["sha256:5", "sha256:3333333344"], choice: "tie"}])"""
    )
    assert players == [
        {"models": ["a (11111111)", "b"], "winner": "a (11111111)"},
        {"models": ["b", "a (33333333)"], "winner": ""},
    ]


def test_thinking_is_folded(talk) -> None:
    split = lambda text: list(  # noqa: E731
        talk.evaluate("text => Object.values(amalgamChatText.split(text))", text)
    )
    assert split("<think>\nhm\n</think>\n82") == ["hm", "82", False]
    assert split("hm</think>82") == ["hm", "82", False], "the template began the thought"
    assert split("<Thinking>hm") == ["hm", "", True]
    assert split("a <think> b") == ["", "a <think> b", False], "a word inside of a sentence"


def test_phone(talk) -> None:
    talk.set_viewport_size(PHONE)
    ask(talk, "Sort 5 1 4 2")
    answered(talk, "demo:base")
    assert sideways(talk) <= 0
    talk.set_viewport_size(DESKTOP)


def test_two_people_talk_at_once(talk, open_beside: Callable) -> None:
    pages = [talk, open_beside()]
    open_chat(pages[1])
    for number, page in enumerate(pages):
        choose(page, "demo:base", "demo:add")
        ask(page, f"What is {number + 11} + 45?")
    for number, page in enumerate(pages):
        answered(page, "demo:base", "demo:add")
        expect(page.locator(".question")).to_have_text([f"What is {number + 11} + 45?"])


def test_two_pages_of_one_browser_keep_their_own(talk, open_beside) -> None:
    page, other = talk, open_beside(same_browser=True)
    open_chat(other)
    for number, one in enumerate((page, other)):
        ask(one, f"Sort {number} 2 1")
    page.reload()
    open_chat(page)
    expect(page.locator(".question")).to_have_text(["Sort 0 2 1"])
    latest = open_beside(same_browser=True)
    open_chat(latest)
    expect(latest.locator(".question")).to_have_count(1)


def test_a_page_stands_on_hostile_memory(talk) -> None:
    page = talk
    page.evaluate(
        """stored => addEventListener('pagehide', () => {
            sessionStorage.removeItem('amalgam-chat');
            localStorage.setItem('amalgam-chat', stored); })""",
        json.dumps(HOSTILE),
    )
    page.reload()
    open_chat(talk)
    expect(page.locator(".question")).to_have_text("<img src=x onerror=alert(1)>")
    expect(column(page, "demo:add").locator(".answer")).to_have_text("<b>x</b>")
    ask(page, "What is 37 + 45?")
    expect(column(page, "demo:add").last.locator(".answer")).to_have_text("82", timeout=NOTE_S)


def test_columns_stop_on_their_own(talk) -> None:
    page = talk
    choose(page, "models/one", "models/two")
    longest(page, 480)
    ask(page, "Hello")
    expect(column(page, "models/two")).to_have_attribute("aria-busy", "true")
    # no pointer: it waits for frames, which are scarce where two models take all processors
    page.get_by_role("button", name="Stop models/one").dispatch_event("click")
    expect(column(page, "models/one").locator(".note")).to_contain_text("stopped")
    expect(column(page, "models/two")).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Stop all").dispatch_event("click")
    expect(column(page, "models/two").locator(".note")).to_contain_text("stopped")


def test_updates_are_at_most_ten_a_second(talk) -> None:
    page = talk
    choose(page, "models/quick")
    longest(page, 480)
    ask(page, "warm")
    answered(page, "models/quick")
    page.locator(".chat-rows").evaluate(
        """node => { window.updates = [];
        new MutationObserver(() => updates.push(performance.now())).observe(
          node, {subtree: true, childList: true, characterData: true}); }"""
    )
    ask(page, "count")
    expect(column(page, "models/quick")).to_have_count(2)
    answered(page, "models/quick")
    times = page.evaluate("updates")
    assert len(times) > 3
    seconds = max((times[-1] - times[0]) / 1000, 0.1)
    assert (len(times) - 2) / seconds < 12, "the first and the last come on top of ten a second"


def test_a_blind_round_hides_names_until_the_vote_which_survives_a_reload(talk) -> None:
    page = talk
    choose(page, "demo:base", "demo:add")
    page.get_by_label("Blind round").check()
    ask(page, "What is 37 + 45?")
    names = page.locator(".cell h4")
    expect(names).to_have_text(["Answer A", "Answer B"])
    expect(page.locator(".chat-heads")).to_be_hidden()
    right = page.locator(".cell", has=page.get_by_text("82", exact=True)).locator("h4")
    letter = right.text_content(timeout=NOTE_S).removeprefix("Answer ")
    group = page.get_by_role("group", name="Vote on question 1")
    expect(group.get_by_role("button")).to_have_text(
        ["A is better", "B is better", "Tie", "Both bad"]
    )
    assert "tokens" not in page.locator(".cells").text_content(), "the pace tells who it is"
    group.get_by_role("button", name=f"{letter} is better").click()
    expect(group).to_have_text(f"You chose {letter}: demo:add.")
    expect(page.locator(".chat-heads")).to_be_visible()
    expect(page.locator(".tally")).to_contain_text("Too early to tell: 1 of 20 votes.")
    page.reload()
    open_chat(talk)
    expect(page.get_by_role("group", name="Vote on question 1")).to_contain_text("You chose")
    expect(page.locator(".tally td").filter(has_text="demo:add")).to_have_count(1)
    page.get_by_role("button", name="Forget the votes").click()
    expect(page.locator(".tally")).to_be_hidden()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".tally")).to_contain_text("Too early")
    page.get_by_label("Blind round").uncheck()


def test_everything_survives_a_reload(talk) -> None:
    page = talk
    choose(page, "demo:add", "demo:sort")
    page.get_by_role("button", name="How answers are chosen").click()
    page.get_by_label("number input for Temperature").fill("0.5")
    page.get_by_label("System prompt").fill("Be brief.")
    page.keyboard.press("Tab")
    ask(page, "What is 37 + 45?")
    answered(page, "demo:add", "demo:sort")
    texts = column(page, "demo:add").locator(".answer").text_content()
    page.get_by_label("Show differences from").select_option("demo:sort")
    page.reload()
    open_chat(talk)
    expect(page.locator(".chat-head h3")).to_have_text(["demo:add", "demo:sort"])
    expect(page.locator(".question")).to_have_text("What is 37 + 45?")
    expect(column(page, "demo:add").locator(".answer")).to_have_text(texts)
    expect(page.get_by_label("Show differences from")).to_have_value("demo:sort")
    page.get_by_role("button", name="How answers are chosen: temperature 0.5").click()
    expect(page.get_by_label("System prompt")).to_have_value("Be brief.")
