"""Reinforced Agent Merging: keep what one model alone changed, average what several did.

Source: arXiv 2601.13572, as mergekit 0.1.5 computes it. Model i is active in an entry
where |d_i| > epsilon, and what is not active counts as no change. Of an entry in which k models are
active:

    merged = base + sum_active lambda_i d_i   if k = 1,   base + sum_active d_i / k   if k > 1

`ram` has lambda_i = 1. `ramplus_tl` makes up for what averaging takes from model i, per tensor:
with shared_i and unique_i its active entries in which others are active too or none is,

    lambda_i = 1 + r min(shared_i / max(unique_i, epsilon), alpha)

Where we differ: with epsilon 0 a model that changed nothing divides 0 by 0, which makes all of
mergekit's tensor NaN; here such a model changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.declarations.knobs import LAMBDA, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.instructions import Decision, Shared


def factors(counts: np.ndarray, r: float, alpha: float, epsilon: float) -> tuple[float, ...]:
    """lambda_i of every model.

    Args:
        counts: (2, n), entries that others changed too, and entries that it changed alone.
    """
    shared, unique = counts
    ratio = shared / np.maximum(unique, max(epsilon, 1e-100))  # 0 where nothing is shared
    return tuple((1.0 + r * np.clip(ratio, 0.0, alpha)).tolist())


EPSILON = Knob(
    "smallest_change",
    "Smallest change",
    1e-5,
    "Smaller changes count as none.",
    low=0.0,
    high=1.0,
    step=1e-5,
    scheduled=True,
    also="epsilon",
)


def decide(recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None) -> Shared:
    """Element by element."""
    epsilon = recipe.at("smallest_change", reader.entry)
    return Shared((1.0,) * reader.experts, epsilon)


def decide_plus(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None
) -> Shared:
    """Element by element, once shared and unique entries are counted."""
    names = ("smallest_change", "r", "alpha")
    epsilon, r, alpha = (recipe.at(name, reader.entry) for name in names)
    counts = reader.shared_counts(decisions, epsilon).T
    return Shared(factors(counts, r, alpha, epsilon), epsilon)


_FORMULA = "sum of changes where one model is active, their mean where several are"
_PAPER = "Reinforced Agent Merging, 2026"
_URL = "https://arxiv.org/abs/2601.13572"
METHODS = (
    Consensus(
        id="ram",
        title="RAM",
        summary="Keep what one model alone changed, average what several did.",
        formula=_FORMULA,
        paper=_PAPER,
        url=_URL,
        words="Keep what one of them alone changed, and average what several did.",
        decide=decide,
        measures=lambda recipe: False,
        needs_all=True,
        unpredicted="Which changes are shared, only the merge can tell.",
        knobs=(EPSILON, LAMBDA),
    ),
    Consensus(
        id="ramplus_tl",
        title="RAM+",
        summary="As RAM, with what averaging takes made up for.",
        formula=f"{_FORMULA}; unique ones times 1 + r min(shared / unique, alpha)",
        paper=_PAPER,
        url=_URL,
        words="Keep what one of them alone changed, a little more of it, and average the rest.",
        decide=decide_plus,
        measures=lambda recipe: True,
        needs_all=True,
        unpredicted="Which changes are shared, only the merge can tell.",
        knobs=(
            EPSILON,
            Knob(
                "r",
                "Reinforcement",
                0.1,
                "How much unique changes gain.",
                low=0.0,
                high=10.0,
                step=0.05,
                scheduled=True,
            ),
            Knob(
                "alpha",
                "Largest gain",
                0.2,
                "Bound of shared over unique.",
                low=0.0,
                high=10.0,
                step=0.05,
                scheduled=True,
            ),
            LAMBDA,
        ),
    ),
)

PRESETS = (
    Preset(
        id="ram",
        title="RAM",
        group="elect",
        place=22,
        consensus="ram",
        summary="Adds what is unique to a model, averages what is shared.",
        use_when="Experts tuned by reinforcement, whose changes are few.",
    ),
    Preset(
        id="ramplus_tl",
        title="RAM+",
        group="elect",
        place=23,
        consensus="ramplus_tl",
        summary="As RAM, with unique changes reinforced.",
        use_when="RAM forgets what single experts know.",
    ),
)
