"""What ends answers: by page and run, bounded, also before they begin."""

from __future__ import annotations

from ui.chat.stops import Stops


def test_a_run_has_one_stop_until_it_is_over() -> None:
    stops = Stops()
    stop = stops.of("page", "1")
    assert stops.of("page", "1") is stop
    assert stops.of("page", "2") is not stop
    assert stops.of("other", "1") is not stop
    stops.over("page", "1")
    assert stops.of("page", "1") is not stop
    stops.over("nobody", "1")


def test_who_leaves_stops_everything_of_its_own() -> None:
    stops = Stops()
    own, others = stops.of("page", "1"), stops.of("other", "1")
    stops.leave("page")
    stops.leave("nobody")
    assert (own.is_set(), others.is_set()) == (True, False)


def test_what_was_not_used_for_long_is_stopped_and_forgotten() -> None:
    stops = Stops()
    first = stops.of("page", "0")
    for number in range(1, 257):
        stops.of("page", str(number))
    assert first.is_set()
    last = stops.of("page", "256")
    for number in range(256):
        stops.of(f"page {number}", "1")
    assert last.is_set()
