"""Locks whose waiting can be ended."""

from __future__ import annotations

import threading

import pytest

from merging.errors import Cancelled
from merging.system.locks import held


def test_who_holds_it_keeps_others_out_until_the_end() -> None:
    lock = threading.Lock()
    with held(lock, None):
        assert lock.locked()
    assert not lock.locked()


def test_waiting_ends_where_it_is_stopped_and_the_lock_stays_the_others() -> None:
    lock, stop = threading.Lock(), threading.Event()
    stop.set()
    with lock, pytest.raises(Cancelled), held(lock, stop):
        raise AssertionError("held twice")
    assert not lock.locked()


def test_a_lock_that_is_free_is_taken_though_it_is_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with held(threading.Lock(), stop):
        pass


def test_a_failure_inside_lets_go() -> None:
    lock = threading.Lock()
    with pytest.raises(ZeroDivisionError), held(lock, None):
        _ = 1 / 0
    assert not lock.locked()
