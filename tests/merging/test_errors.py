"""What a person is told: one line, short, nothing unseen in it."""

from __future__ import annotations

import pytest

from merging.errors import LINE, MergeError, RecipeError, one_line, shown


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain words, é, 漢字, 😀, 👩\u200d🔬", "plain words, é, 漢字, 😀, 👩\u200d🔬"),
        ("two\nlines\tand\r\n  a gap ", "two lines and a gap"),
        ("red \x1b[31m", "red \\x1b[31m"),
        ("zero \0, half \ud800", "zero \\x00, half \\ud800"),
        (
            "turned \u202e, a line end \u2028, a tag \U000e0041",
            "turned \\u202e, a line end \\u2028, a tag \\U000e0041",
        ),
        ("", ""),
    ],
)
def test_a_line_holds_nothing_unseen(text: str, line: str) -> None:
    assert one_line(text) == line


def test_a_long_line_keeps_its_beginning_and_its_end() -> None:
    line = one_line("begin " + "word " * 1_000_000 + "end")
    assert len(line) == LINE == 500
    assert line.startswith("begin word word")
    assert line.endswith("word word end")
    assert line.count("\u2026") == 1


def test_a_long_word_leaves_room_for_the_others() -> None:
    name = "a" * 5000 + "b"
    line = one_line(f"{name}: no folder {name}; give a folder")
    assert len(line) <= 500
    assert line.startswith("aaaa")
    assert line.endswith("; give a folder")
    assert "b: no folder a" in line


def test_every_error_is_such_a_line() -> None:
    error = RecipeError("a\n\x1b" + "b" * 1000)
    assert isinstance(error, MergeError)
    assert str(error) == one_line("a\n\x1b" + "b" * 1000)
    assert str(MergeError()) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("tise", "'tise'"),
        (True, "True"),
        ([1, 2], "[1, 2]"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, ...]"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': {...}}}}"),
        ({1: 1, "a": 2, None: 3}, "{1: 1, 'a': 2, None: 3}"),
        ("\x1b[31m", "'\\x1b[31m'"),
    ],
)
def test_a_value_is_quoted_short(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_number_that_python_does_not_write_out_is_quoted_by_its_size() -> None:
    """16 to the 5000 is 2 to the 20000: 6021 digits."""
    assert shown(16**5000) == "a number of about 6000 digits"


def test_a_value_that_holds_itself_is_quoted_too() -> None:
    inside: list = []
    inside.append(inside)
    assert shown(inside) == "[[[[...]]]]"
    assert len(shown("x" * 10_000_000)) <= 80
