"""ResMerge: merge what is left of every change without its strongest direction, add that sparingly.

Source: ResMerge, arXiv 2606.02252, and its released code; made for experts trained by reinforcement
learning. For the changes tau_i of N experts to a matrix of attention or MLP:

    tau_i = H_i + R_i, H_i the K largest singular directions      (K = 1)
    q_i = R_i / |R_i|, q = sum_i q_i / |sum_i q_i|                (Frobenius norms and cosines)
    s = mean cosine of the pairs R_i, R_j;  c = mean cosine of q_i and q, at least 0
    score = ((s + 1) / 2 + (c + 1) / 2) / 2;  beta = high - (high - low) score  (low 0.7, high 1)
    A = c^beta * mean |R_i| * q;  the mean of R_i where c <= 1 / sqrt(N) or the q_i sum to 0
    C = budget * a * |A| * sum_i H_i / |sum_i H_i|                (budget 0.2)
    a = mean over the pairs of max(0, cosine of H_i and H_j)
    change = A + C, times lambda (1 in the paper)

Other tensors are averaged. One expert has no pairs: s and a are 1, so that it gives R + 0.2 |R| of
its head's direction.

Where we differ: norms and cosines are summed in float64, without the code's 1e-8 in the divisors.
The strongest directions are found by subspace iteration where that is exact to 1e-5 (the error is
given back), by a full decomposition where it is not. N counts experts equal to the base, as there.
Memory: besides the changes, 2 N + 9 float32 copies of the matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from merging.declarations.knobs import LAMBDA, WEIGHT, Knob
from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import Consensus, Evidence, Preset, Pruning
from merging.declarations.values import Recipe
from merging.evidence.matrices import layout, memory, of_matrices
from merging.instructions import Combination, Decision, spectra
from merging.instructions.sums import add_up
from merging.later import torch


class Settings(NamedTuple):
    """The knobs, with the paper's values."""

    directions: int = 1  # K
    low: float = 0.7  # exponent of c where all agree
    high: float = 1.0  # exponent of c where none do
    budget: float = 0.2  # size of the strongest directions, as a share of the rest


def merge(
    changes: Sequence[torch.Tensor], settings: Settings | None = None
) -> tuple[torch.Tensor, float]:
    """The merged change, before lambda, and the largest error of the directions split off.

    Args:
        changes: N changes to one matrix, each (m, n) float32, not changed.
        settings: the knobs; those of the paper where None.

    Returns:
        (m, n) float32, all NaN where a change has a NaN; and the largest sine of the angle, see
        `spectra.leading`, 0.0 where they are exact.
    """
    settings = settings or Settings()
    parts = [head_and_rest(change, settings.directions) for change in changes]
    heads, rests, errors = (list(group) for group in zip(*parts, strict=True))
    backbone = consensus(rests, settings)
    strongest = add_up(heads, [1.0] * len(heads))
    size = _norm(strongest)
    share = settings.budget * head_agreement(heads) * _norm(backbone) / size if size != 0 else 0.0
    return backbone + strongest * share, max(errors)


def head_and_rest(
    change: torch.Tensor, directions: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """H and R, (m, n) float32 that add up to the change, and the error of H's directions."""
    left, values, right, error = spectra.leading(change, directions)
    head = (left * values.float()) @ right.T
    return head, change - head, error


def consensus(rests: Sequence[torch.Tensor], settings: Settings) -> torch.Tensor:
    """A, of the changes without their strongest directions. Shapes as `merge`."""
    norms = [_norm(rest) for rest in rests]
    mean = add_up(rests, [1 / len(rests)] * len(rests))
    total = add_up(rests, [1 / norm if norm != 0 else 0.0 for norm in norms])
    length = _norm(total)
    if length <= 1e-8:
        return mean
    cosines = [_cosine(rest, total) for rest in rests]
    coherence = _share(sum(cosines) / len(rests))
    if coherence <= 1 / math.sqrt(len(rests)):
        return mean
    pairs = [_cosine(one, other) for one, other in combinations(rests, 2)]
    similarity = sum(pairs) / len(pairs) if pairs else 1.0
    score = _share((_share((similarity + 1) / 2) + _share((coherence + 1) / 2)) / 2)
    exponent = settings.high - (settings.high - settings.low) * score
    return total * (coherence**exponent * sum(norms) / len(norms) / length)


def head_agreement(heads: Sequence[torch.Tensor]) -> float:
    """a, in [0, 1]: the mean of the pairs' positive cosines; heads of 0 do not count."""
    present = [head for head in heads if _norm(head) != 0]
    pairs = [max(0.0, _cosine(one, other)) for one, other in combinations(present, 2)]
    if not pairs:
        return float(len(present) > 0)
    return _share(sum(pairs) / len(pairs))


def _norm(matrix: torch.Tensor) -> float:
    return float(matrix.norm(dtype=torch.float64))


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    """The cosine of two matrices as vectors; 0 where one is 0."""
    divisor = _norm(one) * _norm(other)
    product = float((one * other).sum(dtype=torch.float64))
    return product / divisor if divisor != 0 else 0.0


def _share(value: float) -> float:
    """The value, inside [0, 1]; NaN stays."""
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def decide(
    recipe: Recipe,
    reader: Reader,
    decisions: Sequence[Decision],
    evidence: tuple[bool, list[float]],
) -> Combination:
    """Matrices with their strongest directions apart, the mean of other tensors."""
    transposed, errors = evidence
    knobs = ("directions", "low", "high", "budget")
    directions, low, high, budget = (recipe.at(knob, reader.entry) for knob in knobs)
    settings = Settings(directions, low, max(low, high), budget)

    def merged(changes: Sequence[torch.Tensor]) -> torch.Tensor:
        change, error = merge(changes, settings)
        errors.append(error)
        return change

    return of_matrices(recipe, reader, transposed, merged)


def measure(recipe: Recipe, passes: Passes, pruning: Pruning) -> Evidence:
    """The matrices' layout, and a list that takes the errors of directions found by iteration."""
    return Evidence((layout(recipe, passes).values, []))


def errors_of(evidence: tuple[bool, list[float]]) -> Sequence[str]:
    """How exact the directions were, once all tensors are merged."""
    largest = max(evidence[1], default=0.0)
    return (
        (f"strongest directions are exact to {largest:.1e} (sine of the angle)",) if largest else ()
    )


METHODS = (
    Consensus(
        id="resmerge",
        title="ResMerge",
        summary="Merge changes without their strongest directions, and add those sparingly.",
        formula="A(rests) + budget * agreement * |A| * sum_i H_i / |sum_i H_i|",
        paper="ResMerge, 2026",
        url="https://arxiv.org/abs/2606.02252",
        words="Merge what is left without their strongest directions, and add those sparingly.",
        measure=measure,
        memory=memory(9, 1, per_expert=3),
        decide=decide,
        afterwards=errors_of,
        needs_all=True,
        unpredicted="What is left of each change in a sum of directions, only the merge can tell.",
        knobs=(
            WEIGHT,
            LAMBDA,
            Knob(
                "directions",
                "Strongest directions",
                1,
                "Split off each change.",
                low=1,
                high=16,
                step=1,
                scheduled=True,
            ),
            Knob(
                "low",
                "Exponent in agreement",
                0.7,
                "Of the coherence where all experts agree.",
                low=0.0,
                high=2.0,
                step=0.05,
                scheduled=True,
            ),
            Knob(
                "high",
                "Exponent in discord",
                1.0,
                "Of the coherence where none agree; at least the other.",
                low=0.0,
                high=2.0,
                step=0.05,
                scheduled=True,
            ),
            Knob(
                "budget",
                "Strongest directions' size",
                0.2,
                "As a share of the rest.",
                low=0.0,
                high=1.0,
                step=0.05,
                unit="share",
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="resmerge",
        title="ResMerge",
        group="subspaces",
        place=5,
        consensus="resmerge",
        summary="Keeps single strong directions from ruling the merge.",
        use_when="Experts tuned by reinforcement; a skill of few strong directions is lost.",
    ),
)
