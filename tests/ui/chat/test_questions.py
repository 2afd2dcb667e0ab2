"""What a browser sends is read as data: right forms pass, others are refused with why."""

from __future__ import annotations

import math

import pytest

from merging.trial.turns import Sampling
from ui.chat.questions import BadQuestion, read, within


def conversation(*roles: str, text: str = "x") -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role in roles]


def content(messages, settings=None) -> dict:
    return {"run": "1", "model": "m", "messages": messages, "settings": settings}


@pytest.mark.parametrize(
    "roles",
    [("user",), ("system", "user"), ("user", "assistant", "user")],
)
def test_roles_that_take_turns_are_read(roles) -> None:
    assert [message["role"] for message in read(content(conversation(*roles))).messages] == [*roles]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("hello", "1 to 1002"),
        ([], "1 to 1002"),
        (conversation(*["user"] * 1003), "1 to 1002"),
        ([3], "no object"),
        ([{"role": "user"}], "content: not a text"),
        ([{"role": "user", "content": ["x"]}], "content: not a text"),
        (conversation("system"), "take turns"),
        (conversation("user", "user"), "take turns"),
        (conversation("user", "assistant"), "take turns"),
        (conversation("user", "system", "user"), "take turns"),
        (conversation("tool"), "take turns"),
        (conversation("user", text="x" * 8001), "at most 8000"),
        (conversation("user", "assistant", "user", text="x" * 140_000), "over 400,000"),
    ],
)
def test_other_conversations_are_refused(messages, reason) -> None:
    with pytest.raises(BadQuestion, match=reason):
        read(content(messages))


def test_settings_are_brought_within_their_bounds() -> None:
    settings = {"temperature": -1, "top_p": 0, "longest": 5000.0, "seed": 3.7, "more": 1}
    sampling = read(content(conversation("user"), settings)).sampling
    assert sampling == Sampling(1024, 0, 0.05, 3)
    assert read(content(conversation("user"), "none")).sampling == Sampling(128, 0, 1, 0)


@pytest.mark.parametrize("value", [None, "2", True, math.nan, math.inf, [1]])
def test_what_is_no_number_is_the_first_value(value) -> None:
    assert within("longest", value) == 128
