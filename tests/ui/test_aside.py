"""Work in threads of low priority."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from ui.aside import aside


def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_items_come_in_order_from_a_thread_that_lets_others_first() -> None:
    def items() -> Iterator[int]:
        yield priority()
        yield threading.get_native_id()

    before = priority()
    niceness, thread = aside(items())
    assert thread != threading.get_native_id()
    assert niceness == (min(19, before + 10) if sys.platform == "linux" else before)
    assert priority() == before, "ours stays"


def test_a_failure_arrives_after_what_was_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    made = aside(items())
    assert next(made) == 1
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_who_leaves_ends_the_work() -> None:
    over, more = threading.Event(), threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            assert more.wait(30)
            yield 2
            yield 3
        finally:
            over.set()

    made = aside(items())
    next(made)
    made.close()  # type: ignore[attr-defined]
    more.set()
    assert over.wait(30)
