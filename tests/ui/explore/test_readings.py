"""A page reads one family at a time: the newest choice."""

from __future__ import annotations

from ui.explore.readings import Readings


def test_a_newer_choice_ends_the_older_one_of_its_page_only() -> None:
    readings = Readings()
    older, elsewhere = readings.begin("a"), readings.begin("b")
    newer = readings.begin("a")
    assert older.over.is_set() and older.replaced
    assert not newer.over.is_set() and not elsewhere.over.is_set()


def test_stop_ends_the_reading_that_goes_on() -> None:
    readings = Readings()
    reading = readings.begin("a")
    readings.stop("b")
    assert not reading.over.is_set()
    readings.stop("a")
    assert reading.over.is_set() and not reading.replaced


def test_an_older_reading_that_ends_late_leaves_the_newer_one() -> None:
    readings = Readings()
    older = readings.begin("a")
    newer = readings.begin("a")
    readings.end("a", older)
    readings.stop("a")
    assert newer.over.is_set()
