"""TSV-Merge: every expert's strongest directions, made orthogonal to the others'.

Source: Gargiulo et al., Task Singular Vectors: Reducing Task Interference in Model Merging, arXiv
2412.00081, section 4.2. For the changes tau_t = U_t S_t V_t^T of T experts to one matrix,
r = min(rows, columns):

    q = int(r / T);  U = [U_1 ... U_T], V = [V_1 ... V_T], S = [S_1 ... S_T], the q largest of each
    change = P_U diag(S) P_V^T;  P_X = X (X^T X)^(-1/2), the nearest orthonormal matrix

times lambda (1 in the paper). Tensors that are not matrices are averaged.

Where we differ: directions whose singular value is at most 1e-6 of their expert's largest are left
out, and an expert equal to the base does not count among the T; a full decomposition gives both
random vectors that push the others aside. Where experts share a direction X^T X has no inverse;
its pseudo-inverse gives equal experts their common change, of rank q, where the released code
fills up with random vectors. With more experts than r the strongest direction of each is used
(q = 0 there, and nothing merged).
Exact at every size, see `merging.instructions.spectra`. Memory: besides the changes, six float32
copies of the matrix and three float64 squares of its smaller side.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.declarations.knobs import LAMBDA, WEIGHT
from merging.declarations.measures import Reader
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.evidence.matrices import layout, memory, of_matrices
from merging.instructions import Combination, Decision, spectra
from merging.later import torch


def merge(changes: Sequence[torch.Tensor]) -> torch.Tensor:
    """The merged change, before lambda.

    Args:
        changes: T changes to one matrix, each (m, n) float32, not changed.

    Returns:
        (m, n) float32; all NaN where a change has a NaN.
    """
    active = [change for change in changes if bool((change != 0).any())]
    if not active:
        return torch.zeros_like(changes[0])
    count = max(min(changes[0].shape) // len(active), 1)
    parts = [spectra.decompose(change, count) for change in active]
    lefts, values, rights = (torch.cat(list(group), dim=-1) for group in zip(*parts, strict=True))
    left, right = spectra.isometry(lefts)[0], spectra.isometry(rights)[0]
    return (left * values.float()) @ right.T


def decide(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], transposed: bool
) -> Combination:
    """Matrices by their directions, the mean of other tensors."""
    return of_matrices(recipe, reader, transposed, merge)


METHODS = (
    Consensus(
        id="tsv_m",
        title="TSV-Merge",
        summary="Take every expert's strongest directions, made orthogonal to the others'.",
        formula="P_U diag(S) P_V', of the r / T strongest singular directions of each expert",
        paper="Gargiulo et al. 2024, Task Singular Vectors",
        url="https://arxiv.org/abs/2412.00081",
        words="Take the strongest directions of each, made orthogonal to the others'.",
        measure=layout,
        memory=memory(6, 3),
        decide=decide,
        needs_all=True,
        unpredicted="What is left of each change in a sum of directions, only the merge can tell.",
        knobs=(WEIGHT, LAMBDA),
    ),
)

PRESETS = (
    Preset(
        id="tsv_m",
        title="TSV-Merge",
        group="subspaces",
        place=2,
        consensus="tsv_m",
        summary="Keeps each expert's strongest directions out of the others' way.",
        use_when="Experts for different tasks that interfere; strength 0.6 if one skill suffers.",
        shown={"lambda": 0.6},
    ),
)
