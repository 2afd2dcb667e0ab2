"""KnOTS: changes seen in the directions they share, merged there, and turned back.

Source: Stoica et al., Model Merging with SVD to Tie the Knots, arXiv 2410.19735, section 4. For the
changes tau_t of T experts to one matrix:

    [tau_1 | ... | tau_T] = U S [V_1 | ... | V_T]^T;  R_t = S V_t^T
    change = U * merge(R_1, ..., R_T)

where merge is TIES: the density * n largest entries of each R_t, the sign of their sum, and the
mean of those that have it. Meant for adapters, whose changes hardly overlap as they stand; times
lambda, 0.4 to 0.6 in the paper. Tensors that are not matrices are merged by TIES as they are,
which is what the released code's diagonal matrices come to.

R_t = U^T tau_t, so only U is needed: the eigenvectors of sum_t tau_t tau_t^T, without a
decomposition of T matrices side by side.

Where we differ: directions count above 1e-6 of the largest singular value (above 1e-5 as a number
in the released code, which depends on the changes' scale); entries of R_t up to 1e-6 of their
column are 0, not rounding that votes and counts. Where entries cancel exactly nobody is
elected; the code takes the sign of the majority of all entries, which depends on the arbitrary sign
of each direction. Entries are pruned per matrix; the code prunes all matrices of a model together
(its configurations for language models keep all, and then the two are the same).
Memory: besides the changes, T + 8 float32 copies of the matrix and three float64 squares of its
rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from merging.declarations.knobs import LAMBDA, WEIGHT, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.evidence.matrices import each_matrix, layout, memory
from merging.instructions import Combination, Decision, Eager, spectra
from merging.instructions.elections import elect_and_merge, vote
from merging.later import torch
from merging.methods.magnitude import kept_count


def align(changes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The shared directions, and each change in them.

    Args:
        changes: T changes to one matrix, each (m, n) float32, not changed.

    Returns:
        U (m, k) with orthonormal columns and T of R_t (k, n), float32; U R_t = tau_t, but for
        directions too weak to count. The sign of every direction is arbitrary.
    """
    left, _ = spectra.directions(list(changes))
    return left, [_turned(change, left) for change in changes]


def merge(
    changes: Sequence[torch.Tensor], weights: Sequence[float], density: float = 1.0
) -> torch.Tensor:
    """The merged change, before lambda.

    Args:
        changes: T changes to one tensor, each float32, not changed; of a matrix the directions are
            merged, of other tensors the entries.
        weights: one per expert; 1.0 for all in the paper.
        density: share of each R_t that takes part, in (0, 1].

    Returns:
        float32 of the same shape; NaN is seen.
    """
    if changes[0].dim() != 2:
        return agreeing([_largest(change, density) for change in changes], weights)
    left, parts = align(changes)
    return left @ agreeing([_largest(part, density) for part in parts], weights)


def agreeing(parts: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """TIES' mean of those that have the elected sign; 0 where the sum is 0. Odd in its input."""
    merged = elect_and_merge(parts, weights)
    return torch.where(vote(parts, weights) == 0, 0.0, merged)


def _turned(change: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """U^T tau, with 0 where there is only rounding, which would vote and be counted."""
    part = left.T @ change
    rounding = spectra.RANK * change.norm(dim=0)
    return torch.where(part.abs() <= rounding, 0.0, part)


def _largest(part: torch.Tensor, density: float) -> torch.Tensor:
    """The `kept_count` entries of largest magnitude; of equal ones at the cut those that come
    first."""
    if density >= 1.0 or not part.numel():
        return part
    flat = part.flatten()
    places = flat.abs().argsort(descending=True, stable=True)[: kept_count(flat.numel(), density)]
    pruned = torch.zeros_like(flat)
    pruned[places] = flat[places]
    return pruned.reshape(part.shape)


def decide(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], transposed: bool
) -> Combination:
    """Matrices in their shared directions; of other tensors the entries, as TIES."""
    density = recipe.at("directions_density", reader.entry)
    weights = recipe.weights_at(reader.entry)
    if reader.entry.place.is_linear:
        return each_matrix(reader, transposed, lambda changes: merge(changes, weights, density))
    if density >= 1.0:
        return Eager(lambda deltas, start: agreeing(deltas, weights))

    def entries(deltas: Sequence[torch.Tensor], start: int) -> torch.Tensor:
        flat = [delta.flatten() for delta in deltas]
        return merge(flat, weights, density).reshape(deltas[0].shape)

    return Eager(entries, "tensor")


METHODS = (
    Consensus(
        id="knots",
        title="KnOTS",
        summary="Merge changes in the directions they share, by TIES.",
        formula="[delta_1 | ... | delta_T] = U R; U * TIES(R_1, ..., R_T)",
        paper="Stoica et al. 2024, Model Merging with SVD to Tie the Knots",
        url="https://arxiv.org/abs/2410.19735",
        words="Turn them into the directions they share, and average those that agree there.",
        measure=layout,
        memory=memory(8, 3, per_expert=2),
        decide=decide,
        needs_all=True,
        unpredicted="What is left of each change in a sum of directions, only the merge can tell.",
        knobs=(
            WEIGHT,
            replace(LAMBDA, default=0.5),
            Knob(
                "directions_density",
                "Density in directions",
                1.0,
                "Share of each expert's entries, in the shared directions, that takes part.",
                low=0.0,
                high=1.0,
                step=0.01,
                unit="share of entries kept",
                scheduled=True,
                also="density",
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="knots",
        title="KnOTS",
        group="subspaces",
        place=3,
        consensus="knots",
        summary="Aligns changes before signs are elected.",
        use_when="Experts whose changes hardly overlap, adapters' above all; strength 0.5 to 1.",
        shown={"lambda": 1.0},
    ),
)
