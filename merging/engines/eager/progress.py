"""How far a pass over a family is, as its caller is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        phase: "measure", "merge", "verify" or "scan".
        done, total: elements, all passes counted.
        tensor, layer: what is being worked on.
        seconds: since the start.
        rate_bytes: bytes of float32 work per second so far.
        eta_s: estimated seconds left, None before it can be told.
    """

    phase: str
    done: int
    total: int
    tensor: str
    layer: int | str | None
    seconds: float
    rate_bytes: float
    eta_s: float | None


ProgressCallback = Callable[[Progress], None]
