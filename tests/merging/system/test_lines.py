"""Keys and lists know their lines, wherever they are taken."""

from __future__ import annotations

import copy

import pytest

from merging.errors import BadFile, RecipeError
from merging.system import bounded_yaml
from merging.system.lines import Lined, at_line, first_line, line_in, line_of, within

TEXT = "# a comment\na: 1\nb:\n- x\n\n- y: 2\n  z: 3\nc: [4,\n  5]\n"


def test_a_text_that_is_read_keeps_its_lines() -> None:
    value = bounded_yaml.load(TEXT)
    assert [line_in(value, key) for key in "abc"] == [2, 3, 8]
    assert [line_in(value["b"], index) for index in (0, 1, 2)] == [4, 6, None]
    assert line_in(value["b"][1], "z") == 7
    assert [line_in(value["c"], index) for index in (0, 1)] == [8, 9]
    assert (first_line(value), first_line(value["b"]), first_line(3)) == (2, 4, None)


def test_copies_of_a_mapping_keep_the_lines_of_its_keys() -> None:
    value = bounded_yaml.load(TEXT)
    both = {**{"d": 1}, **dict(value)} | {"a": 2}
    assert [line_in(both, key) for key in "dabc"] == [None, 2, 3, 8]
    assert line_in(copy.deepcopy(value), "c") == 8


def test_a_key_is_the_text_that_it_is() -> None:
    key = Lined("weight", 4)
    assert key == "weight"
    assert {"weight": 1}[key] == 1
    assert (line_of(key), line_of("weight")) == (4, None)


def test_plain_values_have_no_lines() -> None:
    assert line_in({"a": 1}, "a") is None
    assert line_in(["a"], 0) is None
    assert line_in(None, "a") is None


def test_the_inmost_line_counts() -> None:
    value = bounded_yaml.load(TEXT)
    inner = within(value["b"], 1)
    with pytest.raises(RecipeError) as error, at_line(1), within(value, "none", "b"), inner:
        raise RecipeError("wrong")
    assert error.value.line == 6
    with pytest.raises(RecipeError) as error, at_line(1), within(value, "none"):
        raise RecipeError("wrong")
    assert str(error.value) == "line 1: wrong"


def test_a_file_is_named_beside_the_line() -> None:
    error = BadFile("it is wrong", line=3)
    error.file = "mine.yaml"
    assert (str(error), error.reason) == ("mine.yaml, line 3: it is wrong", "it is wrong")
