"""Choices in groups: their markup and what they may hold."""

from __future__ import annotations

from ui.choices import Choices, Option

TWO = [("First", [Option("a", "A", "what <a> does")]), ("Second", [Option("b", "B")])]


def test_the_group_of_what_is_chosen_is_open() -> None:
    markup = Choices("b", grouped=TWO, label="Letter").html_template
    assert markup.count("<details") == 2
    assert markup.index("<details open>") > markup.index("First")
    assert "<details" not in Choices("b", grouped=[("", TWO[1][1])]).html_template


def test_what_methods_say_is_text() -> None:
    assert "what &lt;a&gt; does" in Choices(grouped=TWO).html_template


def test_it_knows_what_it_may_hold() -> None:
    choices = Choices("a", grouped=TWO)
    assert (choices.value, choices.ids) == ("a", {"a", "b"})
