"""The bounded log: everything is written while little is said, and floods are cut."""

from __future__ import annotations

import io
from dataclasses import dataclass

from ui.log import Allowance, BoundedLog


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_little_is_written_as_it_is() -> None:
    stream = io.StringIO()
    log = BoundedLog(stream, Allowance(100, 1, Clock()))
    print("one", "two", file=log)  # type: ignore[call-overload]
    assert stream.getvalue() == "one two\n"
    assert not log.isatty()


def test_a_flood_is_cut_and_counted() -> None:
    stream, clock = io.StringIO(), Clock()
    log = BoundedLog(stream, Allowance(10, 2, clock))
    for _ in range(1000):
        assert log.write("x" * 4) == 4
    assert stream.getvalue() == "x" * 10
    clock.seconds = 3.0  # six characters more
    log.write("yy")
    assert stream.getvalue() == "x" * 10 + "\n[3990 characters were left out here]\nyy"
    log.write("z" * 50)
    assert stream.getvalue().endswith("yyzzzz")


def test_an_allowance_never_grows_beyond_its_most() -> None:
    clock = Clock()
    allowance = Allowance(10, 2, clock)
    clock.seconds = 1e9
    assert allowance.take(11) == 10
