"""Task files: what they may hold, what is said of wrong lines, and how replies are scored."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from merging.errors import MergeError
from merging.trial.tasks import Task, TaskFileError, is_right, last_number, read_tasks

GOOD = '{"domain": "d", "prompt": "p", "answer": "a"}\n'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: not valid JSON"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ("[1]", "line 2: expected an object"),
        ('{"domain": "d", "prompt": "p"}', 'line 2: "answer" is missing'),
        ('{"domain": "d", "prompt": "p", "answer": 4}', 'line 2: "answer" must be a text'),
        ('{"domain": "", "prompt": "p", "answer": "a"}', 'line 2: "domain" must be a text'),
        ('{"domain": "d", "prompt": "p", "answer": "a", "n": 1}', "line 2: unknown key 'n'"),
        ('{"domain": "d", "prompt": "\\ud800", "answer": "a"}', 'line 2: "prompt" holds half'),
    ],
)
def test_a_bad_line_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(GOOD + line, encoding="utf-8")
    with pytest.raises(TaskFileError, match=re.escape(f"{path}, {complaint}")):
        read_tasks(path)
    assert issubclass(TaskFileError, MergeError)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"scoring": "fuzzy"}, "valid: exact, contains, number, choice"),
        ({"scoring": "choice"}, '"choices" go with "scoring": "choice"'),
        ({"choices": ["a", "b"]}, '"choices" go with "scoring": "choice"'),
        ({"scoring": "choice", "choices": ["a"]}, "a list of two or more"),
        ({"scoring": "choice", "choices": ["a", 1]}, '"choices" must be a text'),
        ({"scoring": "choice", "choices": ["b", "c"]}, '"answer" must be one of "choices"'),
        ({"scoring": "choice", "choices": ["a", "a"]}, "which all differ"),
        ({"scoring": "number"}, '"answer" holds no number'),
    ],
)
def test_a_scoring_that_cannot_be_is_refused(more: dict, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"domain": "d", "prompt": "p", "answer": "a", **more}))
    with pytest.raises(TaskFileError, match=re.escape(complaint)):
        read_tasks(path)


def test_a_missing_empty_or_binary_task_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, complaint in [
        ("absent", "cannot be read"),
        ("empty", "holds no task"),
        ("binary", "cannot be read"),
        (".", "cannot be read"),
    ]:
        with pytest.raises(TaskFileError, match=complaint):
            read_tasks(tmp_path / name)


def test_tasks_carry_their_scoring(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    more = {"scoring": "choice", "choices": ["a", "b"]}
    path.write_text(GOOD + json.dumps({"domain": "d", "prompt": "p", "answer": "a", **more}))
    assert read_tasks(path) == [
        Task("d", "p", "a"),
        Task("d", "p", "a", "choice", ("a", "b")),
    ]


@pytest.mark.parametrize(
    ("scoring", "answer", "reply", "right"),
    [
        ("exact", "82 ", " 82\n", True),
        ("exact", "82", "82.", False),
        ("exact", "82", "8 2", False),
        ("contains", "82", "It is 82.", True),
        ("contains", "82", "It is 182.", False),
        ("contains", "New York", "in new\n york, of course", True),
        ("contains", "C++", "written in C++", True),
        ("contains", "a.c", "abc", False),
        ("number", "82", "37 + 45 = 82", True),
        ("number", "82", "82 is 37 + 45", False),
        ("number", "1250.5", "about 1,250.50 dollars", True),
        ("number", "-3", "so -3.", True),
        ("number", "7", "10-3 = 7", True),
        ("number", "3", "it is 10-3", True),
        ("number", "82", "none", False),
    ],
)
def test_replies_are_scored(scoring: str, answer: str, reply: str, right: bool) -> None:
    assert is_right(Task("d", "p", answer, scoring), reply) == right


def test_a_number_of_a_million_digits_takes_no_time() -> None:
    assert last_number("9" * 1_000_000) is None
    assert last_number("the year 2026") == Decimal(2026)
