"""Sums over one tensor's changes."""

from __future__ import annotations

import numpy as np

from merging.declarations.measures import Reader
from merging.instructions import Decision

_NOTHING = 1e-7  # as mergekit: norms below this are none


def l1_ratio(reader: Reader, expert: int, pruned: Decision) -> float:
    """||delta||_1 over ||pruned delta||_1 of one expert; 1 where either is below 1e-7, as mergekit.

    Rounded to float32, which is what entries are multiplied by, so that the order in which an
    engine adds up is lost.

    Args:
        pruned: what stays, with the factor 1.
    """
    before, after = reader.pruned_norms(expert, pruned)
    return float(np.float32(before / after)) if min(before, after) >= _NOTHING else 1.0
