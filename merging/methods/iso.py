"""Isotropic merging: all directions of a merged matrix made equally strong.

Source: Marczak et al., No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
Subspaces, arXiv 2502.04959, sections 4 (Iso-C) and 5 (Iso-CTS). For the changes tau_t of T experts
to one matrix, r = min(rows, columns):

Iso-C:   sum_t tau_t = U S V^T;  change = mean(S) U V^T
Iso-CTS: r - k = T * round((r - int(fraction * r)) / T), s = (r - k) / T
         U_k, S_k, V_k   the k largest of sum_t tau_t
         U_t, S_t, V_t   the s largest of (I - U_k U_k^T) tau_t
         U, V            polar factors of [U_1 ... U_T U_k] and of [V_1 ... V_T V_k]
         change = mean of all these singular values * U V^T

The result is multiplied by lambda, which the paper tunes between 0 and 3 on validation data; the
fraction of common directions is 0.8. Tensors that are not matrices are averaged.

Where we differ: a direction whose singular value is at most 1e-6 of the largest is left out, where
a full decomposition gives it a random vector and then the mean strength; so is an expert equal to
the base. For matrices of full rank the two are the same. The mean runs over the directions used.
Exact at every size: singular values and vectors come from float64 Gram matrices
(`merging.instructions.spectra`). Memory: besides the changes, four float32 copies of the matrix
and three float64 squares of its smaller side; for Iso-CTS nine.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.declarations.knobs import LAMBDA, WEIGHT, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.evidence.matrices import layout, memory, of_matrices
from merging.instructions import Combination, Decision, spectra
from merging.instructions.sums import add_up
from merging.later import torch

FRACTION = 0.8


def common(changes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Iso-C, before lambda.

    Args:
        changes: T changes to one matrix, each (m, n) float32, not changed.

    Returns:
        (m, n) float32; all NaN where a change has a NaN.
    """
    flat, values = spectra.isometry(add_up(changes, [1.0] * len(changes)))
    count = spectra.rank(values)
    return flat * float(values[:count].mean()) if count else flat


def common_and_specific(
    changes: Sequence[torch.Tensor], fraction: float = FRACTION
) -> torch.Tensor:
    """Iso-CTS, before lambda.

    Args:
        changes: T changes to one matrix, each (m, n) float32, not changed.
        fraction: share of directions taken from the sum, in [0, 1].

    Returns:
        (m, n) float32; all NaN where a change has a NaN.
    """
    active = [change for change in changes if bool((change != 0).any())]
    total = add_up(changes, [1.0] * len(changes))
    if not active:
        return total
    shared, each = split(min(total.shape), len(active), fraction)
    left, values, right = spectra.decompose(total, shared)
    parts = [_specific(change, left, each) for change in active]
    parts.append((left, values, right))
    lefts, spectrum, rights = (torch.cat(list(group), dim=-1) for group in zip(*parts, strict=True))
    if not spectrum.numel():
        return torch.zeros_like(total)
    strength = float(spectrum.mean())
    return spectra.isometry(lefts)[0] @ spectra.isometry(rights)[0].T * strength


def split(directions: int, experts: int, fraction: float) -> tuple[int, int]:
    """Directions taken from the sum, and from each expert: k and s, k + T s = directions.

    Halves are rounded to even, as the released code's `round` does.
    """
    each = round((directions - int(directions * fraction)) / experts)
    if each * experts > directions:
        each -= 1
    return directions - each * experts, each


def _specific(
    change: torch.Tensor, left: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The largest directions of a change outside the span of `left` (orthonormal columns).

    Of a change inside that span only rounding is left, whose directions mean nothing: they count
    by the size of the change, not by their own.
    """
    vectors, values, others = spectra.decompose(change - left @ (left.T @ change), count)
    size = change.norm(dtype=torch.float64).reshape(1)
    k = spectra.rank(torch.cat([size, values])) - 1
    return vectors[:, :k], values[:k], others[:, :k]


def decide(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], transposed: bool
) -> Combination:
    """Iso-C of matrices, the mean of other tensors."""
    return of_matrices(recipe, reader, transposed, common)


def decide_specific(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], transposed: bool
) -> Combination:
    """Iso-CTS of matrices, the mean of other tensors."""
    fraction = recipe.at("fraction", reader.entry)
    return of_matrices(
        recipe, reader, transposed, lambda changes: common_and_specific(changes, fraction)
    )


_PAPER = "Marczak et al. 2025, No Task Left Behind"
_URL = "https://arxiv.org/abs/2502.04959"
METHODS = (
    Consensus(
        id="iso_c",
        title="Iso-C",
        summary="Make all directions of the summed changes equally strong.",
        formula="sum_t delta_t = U S V'; mean(S) U V'",
        paper=_PAPER,
        url=_URL,
        words="Add them up, and make all directions of every matrix equally strong.",
        measure=layout,
        memory=memory(4, 3),
        decide=decide,
        needs_all=True,
        unpredicted="What is left of each change in a sum of directions, only the merge can tell.",
        knobs=(WEIGHT, LAMBDA),
    ),
    Consensus(
        id="iso_cts",
        title="Iso-CTS",
        summary="As Iso-C, with room for each expert's own directions.",
        formula="U, V of the sum's strongest and each expert's own directions; mean(S) U V'",
        paper=_PAPER,
        url=_URL,
        words="Take their common directions and some of each one's own, equally strong.",
        measure=layout,
        memory=memory(9, 3),
        decide=decide_specific,
        needs_all=True,
        unpredicted="What is left of each change in a sum of directions, only the merge can tell.",
        knobs=(
            WEIGHT,
            LAMBDA,
            Knob(
                "fraction",
                "Common directions",
                FRACTION,
                "Share of the directions that are taken from the sum of all changes.",
                low=0.0,
                high=1.0,
                step=0.05,
                unit="share of directions",
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="iso_c",
        title="Iso-C",
        group="subspaces",
        place=0,
        consensus="iso_c",
        summary="Adds changes and evens out the strength of their directions.",
        use_when="Experts that moved equally far; a skill of few strong directions is lost.",
    ),
    Preset(
        id="iso_cts",
        title="Iso-CTS",
        group="subspaces",
        place=1,
        consensus="iso_cts",
        summary="As Iso-C, and keeps some directions of every expert.",
        use_when="As Iso-C, with many experts that share little.",
    ),
)
