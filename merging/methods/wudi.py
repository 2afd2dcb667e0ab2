"""WUDI-Merging: the change that disturbs every expert least where that expert changed something.

Source: Cheng et al., Whoever Started the Interference Should End It: Guiding Data-Free Model
Merging via Task Vectors, arXiv 2503.08099, section 4. The rows of tau_t span about the inputs that
expert t's layer met, so that a merged change tau interferes with expert t by (tau - tau_t) tau_t^T.
For the changes tau_t of T experts to one (m, n) matrix this minimises

    F(tau) = sum_t |(tau - tau_t) tau_t^T|^2 / |tau_t|^2      (Frobenius norms)
    dF/dtau = 2 (tau G - N),  G = sum_t G_t,  N = sum_t tau_t G_t,  G_t = tau_t^T tau_t / |tau_t|^2

adam: from sum_t tau_t, `steps` steps of Adam (betas 0.9 and 0.999, epsilon 1e-8) of size `rate`;
300 of 1e-5 in the paper's code for images, of 2e-5 for RoBERTa. Where it stops is part of the
method, and the size of a step does not follow that of the changes: an entry moves by steps * rate
at most, which should be a few times the entries' root mean square. (1e-3 is usual for supervised
tuning. Reinforcement learning moves weights by 1e-5: there the paper's rate undoes it in a step.)

closed: the minimum, held to the sum by a ridge, in one solution of linear equations:

    argmin F(tau) + mu |tau - S|^2 = S + (N - S G) (G + mu I)^(-1),   S = sum_t tau_t
    mu = ridge * tr(G) / n

The minimiser itself (mu = 0) is of no use. It is that of tau X = Y with T m columns in X, the
scaled rows of all changes, and n rows. Where T m is near n, as in keys and values of grouped
attention, X is square: F reaches 0, the least eigenvalue of G is 1e-9 of their mean, and what is
divided by it is rounding (192 x 576, three experts: 195 times the norm of the sum; other matrices 2
to 4 times). The ridge leaves such directions as the sum has them. Every G_t has trace 1, so mu does
not follow the scale of the changes, and ridge 1 draws the line at the mean eigenvalue. With it F
and the way from S come out as after the paper's 300 steps (F / F(S) 0.08, 0.02, 0.03 and 0.12 on
four matrices, Adam 0.10, 0.03, 0.07 and 0.13; ways within 15 %).

There is no lambda in the paper. Tensors that are not matrices are averaged.

Where we differ: the gradient is written out, which needs G and N once and one product a step. An
expert equal to the base divides 0 by 0 in the released code; here it is left out. The closed
form and its ridge are ours. One released script divides by |tau_t|, not its square; this is the
paper's form.
Memory: besides the changes, seven float32 copies of the matrix and four (n, n) float64, for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from merging.declarations.knobs import LAMBDA, WEIGHT, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.evidence.matrices import layout, memory, of_matrices
from merging.instructions import Combination, Decision, spectra
from merging.instructions.sums import add_up
from merging.later import torch

STEPS = 300
RATE = 1e-5
RIDGE = 1.0
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


def descend(
    changes: Sequence[torch.Tensor], steps: int = STEPS, rate: float = RATE
) -> torch.Tensor:
    """The merged change by Adam.

    Args:
        changes: T changes to one matrix, each (m, n) float32, not changed.
        steps: how many; 0 gives the sum.
        rate: size of a step, in units of the parameters.

    Returns:
        (m, n) float32; NaN is seen.
    """
    total = add_up(changes, [1.0] * len(changes))
    curvature, target = normal_equations(changes)
    # tau = total + moved: what vanishes at the start does so in float64, not up to rounding, which
    # Adam's division would make steps of
    start = (total.double() @ curvature).sub_(target).float()
    curvature, moved = curvature.float(), torch.zeros_like(total)
    first, second = torch.zeros_like(total), torch.zeros_like(total)
    for step in range(1, steps + 1):
        gradient = (moved @ curvature).add_(start).mul_(2.0)
        first.lerp_(gradient, 1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        divisor = (second / (1 - _BETAS[1] ** step)).sqrt_().add_(_EPSILON)
        moved.addcdiv_(first, divisor, value=-rate / (1 - _BETAS[0] ** step))
    return total.add_(moved)


def solve(changes: Sequence[torch.Tensor], ridge: float = RIDGE) -> torch.Tensor:
    """The merged change of least F, held to the sum by a ridge.

    Args:
        changes: T changes to one matrix, each (m, n) float32, not changed.
        ridge: above 0, as a share of the mean eigenvalue of G; large values give the sum.

    Returns:
        (m, n) float32; all NaN where a change has a NaN.
    """
    total = add_up(changes, [1.0] * len(changes))
    curvature, target = normal_equations(changes)
    diagonal = curvature.diagonal()
    mean = float(diagonal.mean()) if len(diagonal) else 0.0
    if mean == 0.0:
        return total
    if not math.isfinite(mean):
        return torch.full_like(total, torch.nan)
    gap = target.sub_(total.double() @ curvature)
    diagonal += ridge * mean
    moved = torch.cholesky_solve(gap.T, torch.linalg.cholesky(curvature)).T
    return total.add_(moved.float())


def objective(merged: torch.Tensor, changes: Sequence[torch.Tensor]) -> float:
    """F, how much a merged change disturbs the experts. Shapes as `descend`; float64 inside."""
    total = 0.0
    for change in changes:
        wide = change.double()
        square = float(wide.square().sum())
        if square != 0:
            total += float(((merged.double() - wide) @ wide.T).square().sum()) / square
    return total


def normal_equations(changes: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """G (n, n) and N (m, n), float64, of changes (m, n) float32."""
    columns = changes[0].shape[1]
    curvature = changes[0].new_zeros(columns, columns, dtype=torch.float64)
    target = torch.zeros_like(changes[0], dtype=torch.float64)
    for change in changes:
        square = change.square().sum(dtype=torch.float64)
        if bool(square != 0):
            own = spectra.gram([change.T]).div_(square)
            curvature += own
            target += change.double() @ own
    return curvature, target


def decide(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], transposed: bool
) -> Combination:
    """Matrices by Adam or in closed form, the mean of other tensors."""
    entry = reader.entry
    if recipe.at("solver", entry) == "closed":
        ridge = recipe.at("ridge", entry)
        return of_matrices(recipe, reader, transposed, lambda changes: solve(changes, ridge))
    steps, rate = recipe.at("steps", entry), recipe.at("rate", entry)
    return of_matrices(recipe, reader, transposed, lambda changes: descend(changes, steps, rate))


METHODS = (
    Consensus(
        id="wudi",
        title="WUDI-Merging",
        summary="Find the change that disturbs every expert least where it changed something.",
        formula="argmin sum_t |(m - delta_t) delta_t'|^2 / |delta_t|^2",
        paper="Cheng et al. 2025, Whoever Started the Interference Should End It",
        url="https://arxiv.org/abs/2503.08099",
        words="Find the change that disturbs each of them least.",
        measure=layout,
        memory=memory(8, 8),
        decide=decide,
        needs_all=True,
        unpredicted="What is left of each change in a sum of directions, only the merge can tell.",
        knobs=(
            WEIGHT,
            LAMBDA,
            Knob(
                "solver",
                "Solver",
                "adam",
                "adam: steps from the sum (paper). closed: as good, in a fraction of the time.",
                choices=("adam", "closed"),
                scheduled=True,
            ),
            Knob(
                "steps",
                "Steps",
                STEPS,
                "Of Adam.",
                low=0,
                high=10000,
                step=1,
                scheduled=True,
            ),
            Knob(
                "rate",
                "Step size",
                RATE,
                "Of Adam, in units of the weights.",
                low=0.0,
                high=0.01,
                step=1e-6,
                scheduled=True,
            ),
            Knob(
                "ridge",
                "Hold to the sum",
                RIDGE,
                "Of the closed form: the larger, the closer the result stays to the sum.",
                low=0.01,
                high=100.0,
                step=0.01,
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="wudi",
        title="WUDI-Merging",
        group="subspaces",
        place=4,
        consensus="wudi",
        summary="Searches the change that interferes least with every expert.",
        use_when="Nothing should have to be tuned; solver: closed is many times faster.",
        shown={"solver": "closed"},
    ),
)
