"""Chat in the browser: columns that stream side by side, stop, clear, and show text as text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import PHONE, sideways


@pytest.fixture
def talk(shared_page):
    """Chat without a word said, on the page that these tests share."""
    open_chat(shared_page)
    shared_page.get_by_label("Show differences from the first").uncheck()
    shared_page.get_by_role("button", name="Clear the conversation").click()
    expect(shared_page.locator(".talk:visible .question")).to_have_count(0)
    choose(shared_page, "demo:base")
    return shared_page


def open_chat(page) -> None:
    page.get_by_role("tab", name="Chat").click()
    page.get_by_placeholder("Ask all of them").wait_for()


def choose(page, *names: str) -> None:
    group = page.locator("#chat-models")
    for box in group.get_by_role("checkbox").all():
        box.set_checked(False)
    for name in names:
        group.get_by_role("checkbox", name=name, exact=True).set_checked(True)
    for name in names:
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()


def ask(page, question: str) -> None:
    page.get_by_placeholder("Ask all of them").fill(question)
    page.get_by_role("button", name="Send").click()


def column(page, name: str):
    return page.get_by_role("log", name=f"Conversation with {name}", exact=True)


def longest(page, tokens: int) -> None:
    page.get_by_role("button", name="How answers are chosen").click()
    page.get_by_label("number input for Longest answer").fill(str(tokens))
    page.keyboard.press("Tab")


def test_three_columns_answer_one_question(talk) -> None:
    choose(talk, "demo:base", "demo:add", "demo:sort")
    ask(talk, "What is 37 + 45?")
    for name in ("demo:base", "demo:add", "demo:sort"):
        expect(column(talk, name)).to_contain_text("What is 37 + 45?")
        expect(column(talk, name).locator(".note")).to_contain_text("token", timeout=30_000)
        expect(column(talk, name)).to_have_attribute("aria-busy", "false")
    expect(talk.get_by_placeholder("Ask all of them")).to_have_value("")
    assert talk.get_by_text("tokens/s").count() == 3


def test_next_question_can_be_typed_at_once(talk) -> None:
    choose(talk, "demo:base")
    ask(talk, "Sort 5 1 4 2")
    ask(talk, "Sort 3 2 1")
    questions = column(talk, "demo:base").locator(".question")
    expect(questions).to_have_text(["Sort 5 1 4 2", "Sort 3 2 1"])
    expect(column(talk, "demo:base").locator(".note").last).to_contain_text("token")


def test_suggested_prompt_is_one_click(talk) -> None:
    talk.get_by_role("button", name="Reverse silver").click()
    expect(column(talk, "demo:base")).to_contain_text("Reverse silver")
    expect(column(talk, "demo:base").locator(".note")).to_contain_text("token", timeout=30_000)


def test_markup_of_a_question_is_shown_as_text(talk) -> None:
    choose(talk, "demo:base")
    ask(talk, "<img src=x onerror=alert(1)><b>bold</b>")
    expect(column(talk, "demo:base").locator(".question")).to_have_text(
        "<img src=x onerror=alert(1)><b>bold</b>"
    )
    assert talk.locator(".turns img, .turns b").count() == 0


@pytest.mark.parametrize(
    ("question", "message"), [("   ", "Write a question first"), ("7" * 9000, "8000 are the most")]
)
def test_useless_questions_are_refused(talk, question: str, message: str) -> None:
    ask(talk, question)
    expect(talk.locator("#chat-problem")).to_contain_text(message)


def test_too_long_for_the_model_is_said_in_its_column(talk) -> None:
    choose(talk, "demo:base", "models/quick")
    ask(talk, "9" * 300)
    expect(column(talk, "demo:base")).to_contain_text("reads at most 127", timeout=30_000)
    expect(column(talk, "models/quick").locator(".note")).to_contain_text("·", timeout=60_000)
    ask(talk, "Sort 3 1 2")
    expect(column(talk, "demo:base").locator(".note").last).to_contain_text("token")


def test_clear_begins_anew(talk) -> None:
    choose(talk, "demo:base")
    ask(talk, "Sort 5 1 4 2")
    expect(column(talk, "demo:base")).to_contain_text("Sort 5 1 4 2")
    talk.get_by_role("button", name="Clear the conversation").click()
    expect(talk.get_by_text("No question yet.").first).to_be_visible()


def test_four_models_at_most(talk) -> None:
    choose(talk, "demo:base", "demo:add", "demo:sort", "demo:spanish")
    talk.locator("#chat-models").get_by_role("checkbox", name="demo:reverse").click()
    expect(
        talk.locator("#chat-models").get_by_role("checkbox", name="demo:reverse")
    ).not_to_be_checked()
    expect(talk.get_by_text("take one away first")).to_be_visible()
    assert talk.locator(".talk:visible").count() == 4


def test_differences_are_marked(talk) -> None:
    choose(talk, "demo:base", "demo:add")
    ask(talk, "What is 37 + 45?")
    expect(column(talk, "demo:add").locator(".note")).to_contain_text("·", timeout=30_000)
    expect(column(talk, "demo:base").locator(".note")).to_contain_text("·", timeout=30_000)
    talk.get_by_label("Show differences from the first").check()
    expect(column(talk, "demo:add").locator("mark.differs").first).to_be_visible()
    assert column(talk, "demo:base").locator("mark").count() == 0


def test_columns_stop_on_their_own(page) -> None:
    open_chat(page)
    choose(page, "models/one", "models/two")
    longest(page, 480)
    ask(page, "Hello")
    expect(column(page, "models/two")).to_have_attribute("aria-busy", "true")
    # no pointer: it waits for frames, which are scarce where two models take all processors
    page.get_by_role("button", name="Stop models/one").dispatch_event("click")
    expect(column(page, "models/one").locator(".note")).to_contain_text("stopped")
    expect(column(page, "models/two")).to_have_attribute("aria-busy", "true")
    page.get_by_role("button", name="Stop models/two").dispatch_event("click")
    expect(column(page, "models/two").locator(".note")).to_contain_text("stopped")


def test_updates_are_at_most_ten_a_second(page) -> None:
    open_chat(page)
    choose(page, "models/quick")
    longest(page, 480)
    ask(page, "warm")
    expect(column(page, "models/quick").locator(".note").last).to_contain_text("·", timeout=60_000)
    column(page, "models/quick").evaluate(
        """node => { window.updates = [];
        new MutationObserver(() => updates.push(performance.now())).observe(
          node, {subtree: true, childList: true, characterData: true}); }"""
    )
    ask(page, "count")
    expect(column(page, "models/quick").locator(".turn")).to_have_count(2)
    expect(column(page, "models/quick").locator(".note").last).to_contain_text("·", timeout=60_000)
    times = page.evaluate("updates")
    assert len(times) > 3
    seconds = max((times[-1] - times[0]) / 1000, 0.1)
    assert (len(times) - 2) / seconds < 12, "the first and the last come on top of ten a second"


def test_two_people_talk_at_once(open_page: Callable) -> None:
    pages = [open_page(), open_page()]
    for number, page in enumerate(pages):
        open_chat(page)
        choose(page, "demo:base", "demo:add")
        ask(page, f"What is {number + 11} + 45?")
    for number, page in enumerate(pages):
        for name in ("demo:base", "demo:add"):
            expect(column(page, name).locator(".note")).to_contain_text("·", timeout=30_000)
            expect(column(page, name)).to_contain_text(f"What is {number + 11} + 45?")
            expect(column(page, name)).not_to_contain_text(f"What is {12 - number} + 45?")


def test_phone(open_page: Callable) -> None:
    page = open_page(viewport=PHONE)
    open_chat(page)
    ask(page, "Sort 5 1 4 2")
    expect(column(page, "demo:base").locator(".note")).to_contain_text("·", timeout=30_000)
    assert sideways(page) <= 0
