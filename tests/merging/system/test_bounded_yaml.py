"""YAML as plain values: what it means, and that nothing in it takes long or much."""

from __future__ import annotations

import math
import tracemalloc

import pytest

from merging.errors import BadFile
from merging.system import bounded_yaml


def refused(text: str) -> str:
    with pytest.raises(BadFile) as error:
        bounded_yaml.load(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("---", None),
        ("\ufeffa: 1", {"a": 1}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        (
            "[1, -2, 0x10, 1_000, 0b11, 1e3, 1e-3, .5, 1.]",
            [1, -2, 16, 1000, 3, 1000.0, 0.001, 0.5, 1.0],
        ),
        ("[yes, no, on, off, true, False]", [True, False, True, False, True, False]),
        ("[~, null, '']", [None, None, ""]),
        (
            "[2026-01-31, 08, =, <<, '1', !!str 1, ! 1]",
            ["2026-01-31", "08", "=", "<<", "1", "1", "1"],
        ),
        (
            "{1: a, true: b, ~: c, 2026-01-31: d, é: e}",
            {"1": "a", "true": "b", "~": "c", "2026-01-31": "d", "é": "e"},
        ),
        ("a:\nb: |\n  x\n  y\n", {"a": None, "b": "x\ny\n"}),
        ("a: &x [1, {b: 2}]\nc: *x", {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}),
        ("&k a: *k", {"a": "a"}),
        ("p: &p {a: 1, b: 2}\nq: {b: 3, <<: *p}", {"p": {"a": 1, "b": 2}, "q": {"b": 3, "a": 1}}),
        (
            "[&p {a: 1}, &q {a: 2, b: 3}, {<<: [*p, *q]}]",
            [{"a": 1}, {"a": 2, "b": 3}, {"a": 1, "b": 3}],
        ),
        ("%YAML 1.1\n---\na: 1\n...\n", {"a": 1}),
    ],
)
def test_values_are_those_of_yaml(text: str, value: object) -> None:
    assert bounded_yaml.load(text) == value


def test_numbers_that_are_none_are_still_numbers() -> None:
    """What they are not good for is the recipe's to say."""
    huge, nan = bounded_yaml.load("[1e309, .nan]")
    assert huge == math.inf
    assert math.isnan(nan)


def test_an_alias_shares_what_it_stands_for() -> None:
    first, second = bounded_yaml.load("[&a [1, 2], *a]")
    assert first is second


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base_model: &a\n  model: *a", ["line 2", "'*a' stands inside of itself"]),
        ("&a [*a]", ["'*a' stands inside of itself"]),
        ("&a {<<: *a}", ["'*a' stands inside of itself"]),
        ("a: *b", ["'*b' stands for nothing"]),
        ("a: 1\nb: 2\na: 3", ["line 3", "key 'a' is given twice"]),
        ("{<<: {a: 1}, <<: {b: 2}}", ["key '<<' is given twice"]),
        ("a: {<<: 3}", ["<< takes a mapping"]),
        ("a: {<<: [1]}", ["<< takes a mapping"]),
        ("? [a]\n: 1", ["a key is a list or a mapping"]),
        ("? {a: 1}\n: 1", ["a key is a list or a mapping"]),
        ("- &a x\n- *a : 1", ["line 2", "a key is an alias"]),
        ("a: 1\n---\nb: 2", ["line 2", "second document"]),
        ("a: !!python/object/apply:os.system [ls]", ["'!!python/object/apply:os.system'"]),
        ("a: !!python/name:os.system ''", ["'!!python/name:os.system'"]),
        ("a: !!binary aGk=", ["'!!binary'", "plain values"]),
        ("a: !!set {b}", ["'!!set'"]),
        ("a: !!str {b: 1}", ["'!!str'"]),
        ("a: !mine x", ["'!mine'"]),
        ("a: !!int x", ["'x' is not a whole number"]),
        ("a: !!int ''", ["'' is not a whole number"]),
        ("a: !!bool maybe", ["'maybe' is not true or false"]),
        ("a: 9" + "9" * 5000, ["5001 digits"]),
        ("a: 0x" + "f" * 5000, ["5002 digits"]),
        ("a: [1", ["line 1"]),
        ("a: b: c", ["line 1", "mapping values are not allowed"]),
        ("a:\n\t- b", ["line 2", "tab; use spaces"]),
        ("a: \x00", ["control characters are not allowed"]),
        ('a: "\\ud800"', ["line 1"]),
        ("a: \ud800", ["character"]),
        ("[" * 65 + "]" * 65, ["deeper than 64 levels"]),
        ("%TAG !a! b\n" * 20 + "--- 1", []),
        ("x" * 4_000_001, ["4,000,000 characters"]),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused_with_its_line(text: str, words: list[str]) -> None:
    message = refused(text)
    assert all(word in message for word in words), message
    assert len(message) <= 500
    assert message.isprintable()


def bomb(levels: int) -> str:
    lines = [f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}1]" for i in range(1, levels)]
    return "a0: &a0 [x]\n" + "\n".join(lines)


MERGES = "m0: &m0 {a: 1}\n" + "\n".join(
    f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}], k{i}: 1}}" for i in range(1, 25)
)


@pytest.mark.parametrize(
    "text",
    [
        bomb(12),
        MERGES,
        f"x: &x {'n' * 100_000}\ny: [{'*x, ' * 9000}]",
        "[" + "1, " * 100_001 + "]",
        "".join(f"%TAG !a{i}! x\n" for i in range(60_000)) + "--- 1",
        "a: " * 2 + "[" * 1_000_000,
        "- " * 1_000_000,
    ],
    ids=["aliases", "merge keys", "text", "values", "directives", "brackets", "dashes"],
)
def test_a_bomb_is_refused_in_little_memory(text: str) -> None:
    tracemalloc.start()
    try:
        refused(text)
        assert tracemalloc.get_traced_memory()[1] < 80_000_000
    finally:
        tracemalloc.stop()


def test_aliases_count_as_if_they_were_written_out() -> None:
    """A list of 9 aliases and a 1 counts 2 + 9 times what it is made of: 2, 20, 182, 1640, 14762,
    132860. The fifth is still taken, the sixth is not."""
    assert len(bounded_yaml.load(bomb(5))["a4"]) == 10
    assert "more than 100,000 values, aliases written out" in refused(bomb(6))
