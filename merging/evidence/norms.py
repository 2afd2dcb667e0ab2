"""Sums over one tensor's changes."""

from __future__ import annotations

from merging.declarations.measures import Reader
from merging.instructions import Decision
from merging.instructions.ranked import ratio


def l1_ratio(reader: Reader, expert: int, pruned: Decision) -> float:
    """||delta||_1 over ||pruned delta||_1 of one expert, see `instructions.ranked.ratio`.

    Args:
        pruned: what stays, with the factor 1.
    """
    return ratio(*reader.pruned_norms(expert, pruned))
