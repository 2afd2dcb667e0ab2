"""Undo, redo and two settings side by side, as data."""

from __future__ import annotations

from ui.explore.trail import LONGEST, Bench, Page, Sides, Trail

ONE, TWO, THREE = {"rate": 0.1}, {"rate": 0.2}, {"rate": 0.3}


def test_a_step_back_and_forth() -> None:
    trail = Trail(ONE).settled(TWO).settled(THREE)
    assert trail == Trail(THREE, (ONE, TWO))
    assert trail.undone() == Trail(TWO, (ONE,), (THREE,))
    assert trail.undone().undone() == Trail(ONE, (), (TWO, THREE))
    assert trail.undone().undone().undone() == trail.undone().undone()
    assert trail.undone().undone().redone().redone() == trail
    assert trail.redone() == trail


def test_to_rest_where_it_stood_is_no_step_and_keeps_what_was_undone() -> None:
    trail = Trail(ONE).settled(TWO).undone()
    assert trail.settled(dict(ONE)) == trail


def test_a_new_step_forgets_what_was_undone() -> None:
    assert Trail(ONE).settled(TWO).undone().settled(THREE) == Trail(THREE, (ONE,))


def test_the_first_rest_is_where_it_begins() -> None:
    assert Trail().settled(ONE) == Trail(ONE)
    assert Trail().undone() == Trail().redone() == Trail()


def test_the_trail_is_bounded() -> None:
    trail = Trail({"rate": -1})
    for rate in range(2 * LONGEST):
        trail = trail.settled({"rate": rate})
    assert len(trail.past) == LONGEST
    assert trail.past[-1] == {"rate": 2 * LONGEST - 2}


def test_the_other_side_begins_as_a_copy_and_each_keeps_its_own() -> None:
    sides, shown = Sides().switched(ONE)
    assert (sides.shown, sides.other, shown) == ("B", "A", ONE)
    back, shown = sides.switched(TWO)  # B was changed meanwhile
    assert (back.shown, shown) == ("A", ONE)
    assert back.switched(ONE)[1] == TWO


def test_a_page_that_was_sent_elsewhere_says_so() -> None:
    page = Page(Bench(Trail(ONE)))
    page.bench = page.bench.settled(TWO)
    assert (page.bench.trail.past, page.goings) == ((ONE,), 0)
    page.go(Bench(Trail(THREE)))
    assert (page.bench.trail.present, page.goings) == (THREE, 1)


def test_a_problem_is_said_until_the_controls_move() -> None:
    bench = Bench(Trail(ONE), problem="gone")
    assert bench.settled(dict(ONE)).problem == "gone"
    assert bench.settled(TWO).problem == ""
