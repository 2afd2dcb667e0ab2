"""Settings of the controls over time: undo, redo, and two that are held side by side.

Settings are the controls' values by the names of `Controls.named`, and "weighed", the experts that
the weights belong to. Pure data: what is shown, and when, the wiring says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Settings = Mapping[str, Any]
LONGEST = 100  # steps back
SIDES = ("A", "B")


@dataclass(frozen=True)
class Trail:
    """Where the controls stand, where they stood before, and what was undone.

    Attributes:
        present: None before anything has come to rest.
    """

    present: Settings | None = None
    past: tuple[Settings, ...] = ()
    future: tuple[Settings, ...] = ()

    def settled(self, settings: Settings) -> Trail:
        """The controls came to rest. Where they stand as before, nothing has happened."""
        if self.present is None or self.present == settings:
            return replace(self, present=settings)
        return Trail(settings, (*self.past, self.present)[-LONGEST:])

    def undone(self) -> Trail:
        """One step back, if there is one."""
        if self.present is None or not self.past:
            return self
        return Trail(self.past[-1], self.past[:-1], (self.present, *self.future))

    def redone(self) -> Trail:
        """One step forward again, if one was undone."""
        if self.present is None or not self.future:
            return self
        return Trail(self.future[0], (*self.past, self.present), self.future[1:])


@dataclass(frozen=True)
class Sides:
    """Two settings, one of which the controls show.

    Attributes:
        shown: the side that the controls are.
        held: the settings of the other one; None until it was shown once.
    """

    shown: str = SIDES[0]
    held: Settings | None = None

    @property
    def other(self) -> str:
        """The side that is not shown."""
        return next(side for side in SIDES if side != self.shown)

    def switched(self, present: Settings) -> tuple[Sides, Settings]:
        """The other side shown, and its settings: a copy of this side's where it is new.

        Args:
            present: the settings that the controls show.
        """
        return Sides(self.other, present), present if self.held is None else self.held


@dataclass(frozen=True)
class Bench:
    """What a page remembers of its settings.

    Attributes:
        problem: why it is not where it was asked to go; "" where it is.
    """

    trail: Trail = field(default_factory=Trail)
    sides: Sides = field(default_factory=Sides)
    problem: str = ""

    def settled(self, settings: Settings) -> Bench:
        """The controls came to rest."""
        trail = self.trail.settled(settings)
        has_moved = self.trail.present is not None and trail.present != self.trail.present
        return Bench(trail, self.sides, "" if has_moved else self.problem)


@dataclass
class Page:
    """The bench of one page, shared by its requests, which overlap.

    Attributes:
        goings: how often it was sent to other settings: what a request that began before would
            note is not where the page is any more.
        planned: settings of a side that was held, and what was planned of them: it stays while
            the other side's controls move.
    """

    bench: Bench = field(default_factory=Bench)
    goings: int = 0
    planned: tuple[Settings, Any] | None = None

    def go(self, bench: Bench) -> None:
        """It is sent to other settings."""
        self.bench, self.goings = bench, self.goings + 1
