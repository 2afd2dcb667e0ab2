"""Reinforced Agent Merging: keep what one model alone changed, average what several did.

Source: arXiv 2601.13572, as mergekit 0.1.5 computes it. Model i is active in an entry
where |d_i| > epsilon, and what is not active counts as no change. Of an entry in which k models are
active:

    merged = base + sum_active lambda_i d_i   if k = 1,   base + sum_active d_i / k   if k > 1

`ram` has lambda_i = 1. `ramplus_tl` makes up for what averaging takes from model i, per tensor:
with shared_i and unique_i its active entries in which others are active too or none is,

    lambda_i = 1 + r min(shared_i / max(unique_i, epsilon), alpha)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.declarations.knobs import LAMBDA, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.instructions import Decision, Eager, needs_of
from merging.later import torch


def counts(deltas: Sequence[torch.Tensor], epsilon: float) -> np.ndarray:
    """What lambda follows from; adds up over the chunks of a tensor.

    Args:
        deltas: n changes, each (m,) float32.

    Returns:
        (2, n) int64: shared and unique entries of every model.
    """
    active, together = _active(deltas, epsilon)
    several = together > 1
    shared = [int((one & several).sum()) for one in active]
    return np.array([shared, [int(one.sum()) for one in active]]) - np.array([[0], [1]]) * shared


def factors(counts: np.ndarray, r: float, alpha: float, epsilon: float) -> tuple[float, ...]:
    """lambda_i of every model.

    Args:
        counts: (2, n), see `counts`.
    """
    shared, unique = counts
    return tuple((1.0 + r * np.clip(shared / np.maximum(unique, epsilon), 0.0, alpha)).tolist())


def merge(
    deltas: Sequence[torch.Tensor], epsilon: float, factors: Sequence[float] | None = None
) -> torch.Tensor:
    """The merged change of one chunk.

    Args:
        deltas: n changes, each (m,) float32, not changed.
        factors: lambda_i; 1 each without.

    Returns:
        (m,) float32. NaN stays NaN.
    """
    active, together = _active(deltas, epsilon)
    alone, sharers = together == 1, together.clamp(min=1).to(deltas[0].dtype)
    total = torch.zeros_like(deltas[0])
    for delta, one, factor in zip(deltas, active, factors or [1.0] * len(deltas), strict=True):
        share = torch.where(alone, delta * factor, delta / sharers)
        total += torch.where(one, share, delta * 0.0)
    return total


def _active(
    deltas: Sequence[torch.Tensor], epsilon: float
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Where each model is active, and how many are."""
    active = [delta.abs() > epsilon for delta in deltas]
    together = torch.zeros_like(deltas[0], dtype=torch.int32)
    for one in active:
        together += one
    return active, together


EPSILON = Knob(
    "epsilon",
    "Smallest change",
    1e-5,
    "Smaller changes count as none.",
    low=0.0,
    high=1.0,
    step=1e-5,
    scheduled=True,
)


def decide(recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None) -> Eager:
    """Element by element."""
    epsilon = recipe.at("epsilon", reader.entry)
    return Eager(lambda deltas, start: merge(deltas, epsilon))


def decide_plus(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None
) -> Eager:
    """Element by element, once shared and unique entries are counted."""
    epsilon, r, alpha = (recipe.at(one, reader.entry) for one in ("epsilon", "r", "alpha"))
    total = np.zeros((2, reader.experts), dtype=np.int64)
    for start, stop in reader.spans(needs_of(decisions)):
        total += counts(reader.pruned(decisions, start, stop), epsilon)
    shares = factors(total, r, alpha, epsilon)
    return Eager(lambda deltas, start: merge(deltas, epsilon, shares))


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
