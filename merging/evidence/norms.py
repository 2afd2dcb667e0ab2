"""Sums over one tensor's changes."""

from __future__ import annotations

from merging.declarations.measures import Reader
from merging.instructions import Decision, apply, elementary

_NOTHING = 1e-7  # as mergekit: norms below this are none


def l1_ratio(reader: Reader, expert: int, pruned: Decision) -> float:
    """||delta||_1 over ||pruned delta||_1 of one expert; 1 where either is below 1e-7, as mergekit.

    Args:
        pruned: what stays, with the factor 1.
    """
    before = after = 0.0
    for start, stop in reader.spans():
        delta = reader.delta(expert, start, stop)
        before += elementary.total(delta.abs())
        after += elementary.total(apply(pruned, delta, start).abs())
    return before / after if min(before, after) >= _NOTHING else 1.0
