"""SCE: select what models change differently, weigh them by what is left, erase minority signs.

Source: Wan et al., FuseChat, arXiv 2408.07990. Per tensor, with changes d_i:

1. select: of the entries whose variance over the models is not 0, the int(select_topk * count) of
   the largest variance stay; 1 keeps everything;
2. calculate: w_i = mean(d_i^2) / sum_j mean(d_j^2), means over the tensor of what is left;
3. erase: the sign of sum_i d_i wins, + where the sum is 0; merged = base + sum_i w_i d_i /
   sum_i w_i over the models that have that sign.

As mergekit 0.1.5: the variance is that of the models present (divided by n); where the mean squares
sum to less than 1e-6, all w_i are equal. Changes of 0.001 and less, as fine-tuning leaves them, are
below that, so it is the usual case. `small: weigh` weighs them by the formula all the same.

The variance is computed in float64 by Welford's steps and rounded to float32, as torch does on a
CPU: equal changes have a variance of exactly 0, and the same changes in another order of models the
same variance. Changes of bfloat16 models have many equal variances; of those at the cut some stay,
spread over the tensor (`merging.selection.tied`), where mergekit leaves it to its sort.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.declarations.knobs import LAMBDA, Knob
from merging.declarations.measures import Reader, Spread
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.errors import NonFinite
from merging.instructions import Combination, Decision, Largest, Selected, Sum
from merging.selection.statistics import largest_cuts
from merging.selection.tied import KEEP_ALL, KEEP_NONE, Cut

LEAST = {"equal": 1e-6, "weigh": 0.0}
"""Mean squares that sum to less weigh all models alike."""
ROUNDING = 1e-6  # squares are rounded to float32


def weights(energies: np.ndarray, numel: int, small: str = "equal") -> tuple[float, ...]:
    """Step 2.

    Args:
        energies: (n,) sums of squares over the tensor.
        numel: its entries.
        small: a key of LEAST.

    Raises:
        NonFinite: a change holds NaN or infinity.
    """
    if not np.isfinite(energies).all():
        raise NonFinite("a value is NaN or infinite")
    means = energies / max(numel, 1)
    total = means.sum()
    if total < LEAST[small] or total == 0:
        return equal(len(means))
    return tuple((means / total).tolist())


def equal(count: int) -> tuple[float, ...]:
    """The weights of models that count alike."""
    return (1.0 / count,) * count


def count_alike(most_energy: float, numel: int, small: str) -> bool:
    """True where all changes are so small that no selection of them is weighed.

    Args:
        most_energy: no less than their squares' sum over the models, but for rounding.
        numel, small: as for `weights`.
    """
    return most_energy * (1 + ROUNDING) < LEAST[small] * numel


def decide(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None
) -> Combination:
    """Steps 1 and 2 in passes over the tensor; step 3 is `Selected`."""
    spread = reader.spread(decisions)
    cut = selection(spread, reader.numel, recipe.at("select_topk", reader.entry))
    if cut == KEEP_NONE:
        return Sum((0.0,) * reader.experts)
    small = recipe.at("small", reader.entry)
    if count_alike(spread.most_energy(), reader.numel, small):
        return Selected(equal(reader.experts), cut)
    if isinstance(cut, Largest) or spread.finds_cuts:
        return Selected(None, cut, LEAST[small])
    return Selected(weights(reader.energies(decisions, cut), reader.numel, small), cut)


def selection(spread: Spread, numel: int, select_topk: float) -> Cut | Largest:
    """Step 1: the cut among the variances.

    Args:
        numel: entries of the tensor.
        select_topk: share of the entries that differ which are kept.

    Raises:
        NonFinite: a variance is NaN or infinite.
    """
    if select_topk >= 1:
        return KEEP_ALL
    share = max(select_topk, 0.0)
    count = int(spread.differing(share) * share)
    if not count:
        return KEEP_NONE
    if spread.finds_cuts:
        return Largest(count)
    return largest_cuts(spread.order_statistics, spread.stops, numel, [[count]])[0][0]


METHODS = (
    Consensus(
        id="sce",
        title="SCE",
        summary="Select what varies most, weigh models by what is left, erase minority signs.",
        formula="top select_topk by variance; w_i = mean d_i^2; mean of w_i d_i that agree",
        paper="Wan et al. 2024, FuseChat, section 3.3",
        url="https://arxiv.org/abs/2408.07990",
        words="Of the entries in which they differ take a share of {select_topk}, weigh each model "
        "by what is left and average those that agree.",
        decide=decide,
        measures=lambda recipe: True,
        needs_all=True,
        unpredicted="Which changes vary most, only the merge can tell.",
        knobs=(
            Knob(
                "select_topk",
                "Selected share",
                1.0,
                "Share of the entries in which models differ that is kept.",
                low=0.0,
                high=1.0,
                step=0.01,
                unit="share of entries that differ",
                scheduled=True,
            ),
            Knob(
                "small",
                "Small changes",
                "equal",
                "equal: changes of 0.001 and less weigh all models alike (mergekit). weigh: they "
                "are weighed by the formula.",
                choices=("equal", "weigh"),
                scheduled=True,
            ),
            LAMBDA,
        ),
    ),
)

PRESETS = (
    Preset(
        id="sce",
        title="SCE",
        group="elect",
        place=12,
        consensus="sce",
        summary="Keeps what models change differently, weighed by its size.",
        use_when="Experts of different strength, fused into one.",
    ),
)
