"""Looks: no two models alike, and the first eight in plain colours."""

from __future__ import annotations

from ui.looks import SEATS, free_seat, look


def test_the_first_eight_differ_in_every_sign() -> None:
    own = [look("e", seat) for seat in range(8)]
    for signs in ({o.colour for o in own}, {o.glyph for o in own}, {o.dash for o in own}):
        assert len(signs) == 8


def test_no_two_of_sixty_four_look_alike() -> None:
    own = [look("e", seat) for seat in range(SEATS)]
    assert len({(o.colour, o.glyph) for o in own}) == len({(o.colour, o.dash) for o in own}) == 64


def test_a_seat_is_new_as_long_as_there_are_some_and_then_the_lowest_free() -> None:
    assert free_seat([]) == 0
    assert free_seat([0, 4]) == 5  # not 1, which somebody may remember
    assert free_seat([*range(7), *range(8, SEATS)]) == 7
    assert free_seat(range(SEATS)) == SEATS
