"""How a model is drawn wherever it stands: its colour, its glyph and its dash.

A look follows a model's seat (`ui.library.Library.seat`), never its place in a list. From the ninth
seat on the colours come again with other glyphs: no two of `SEATS` models look alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6D31",
    "#7B5BA6",
)
GLYPHS = ("●", "■", "▲", "◆", "✚", "★", "▼", "⬟")
DASHES = (
    "solid",
    "dash",
    "dot",
    "dashdot",
    "longdash",
    "longdashdot",
    "2px,6px",
    "9px,3px,2px,3px,2px,3px",
)
SEATS = len(COLOURS) * len(GLYPHS)


@dataclass(frozen=True)
class Look:
    """How one model is drawn everywhere: its short name, colour and second sign."""

    name: str
    colour: str
    glyph: str
    dash: str


def shape(seat: int) -> int:
    """The place of a seat's glyph, and of its dash, in their lists."""
    return (seat + seat // len(COLOURS)) % len(GLYPHS)


def look(name: str, seat: int) -> Look:
    """The look of a model by its seat."""
    sign = shape(seat)
    return Look(name, COLOURS[seat % len(COLOURS)], GLYPHS[sign], DASHES[sign])


def looks(names: Sequence[str], seats: Sequence[int]) -> list[Look]:
    """The look of each model by its seat."""
    return [look(name, seat) for name, seat in zip(names, seats, strict=True)]


def free_seat(taken: Iterable[int]) -> int:
    """The seat of one more model: one that nobody had, else the lowest that is free now; where all
    are taken, they begin again."""
    seats = set(taken)
    following = max(seats, default=-1) + 1
    if following < SEATS:
        return following
    return next((seat for seat in range(SEATS) if seat not in seats), following)
