"""Memory that loaded models share: what fits, what has to go, who waits."""

from __future__ import annotations

import threading

from ui.room import Room


def filled(room: Room, gone: list[str], **sizes: int) -> None:
    for name, size in sizes.items():
        room.reserve(name, size, lambda name=name: gone.append(name))
        room.settle(name, size)


def test_the_least_recently_used_makes_room() -> None:
    room, gone = Room(10), []
    filled(room, gone, a=4, b=4)
    room.touch("a")
    filled(room, gone, c=5)
    assert gone == ["b"]
    assert room.held_bytes() == 9
    assert room.held_bytes(but="a") == 5


def test_what_is_larger_than_the_budget_may_come_alone() -> None:
    room, gone = Room(10), []
    filled(room, gone, a=4, b=12)
    assert gone == ["a"]
    assert room.held_bytes() == 12


def test_what_is_freed_is_let_go_of_by_its_owner() -> None:
    room, gone = Room(10), []
    filled(room, gone, a=4)
    room.free("a")
    assert (gone, room.held_bytes()) == ([], 0)


def test_all_but_one_go() -> None:
    room, gone = Room(10), []
    filled(room, gone, a=1, b=2, c=3)
    room.reserve("loading", 1, lambda: gone.append("loading"))
    assert room.empty(but="b") == 4
    assert gone == ["a", "c"]
    assert room.held_bytes(but="b") == 1


def test_what_is_being_loaded_is_waited_for() -> None:
    room, gone = Room(10), []
    room.reserve("a", 8, lambda: gone.append("a"))
    second = threading.Thread(target=filled, args=(room, gone), kwargs={"b": 8})
    second.start()
    second.join(0.05)
    assert second.is_alive()
    room.settle("a", 8)
    second.join()
    assert gone == ["a"]
