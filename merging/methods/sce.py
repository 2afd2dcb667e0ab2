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

from collections.abc import Iterator, Sequence

import numpy as np

from merging.declarations.knobs import LAMBDA, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.errors import NonFinite
from merging.instructions import Decision, Eager, elementary, needs_of
from merging.instructions.pruning import nested
from merging.later import torch
from merging.selection.statistics import Rows, largest, split
from merging.selection.tied import KEEP_ALL, KEEP_NONE, Cut

LEAST = {"equal": 1e-6, "weigh": 0.0}
"""Mean squares that sum to less weigh all models alike."""
SMALLEST = 1e-6  # a divisor below this counts as this


def variance(deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """The variance over the models, entry by entry.

    Args:
        deltas: n changes, each (m,) float32.

    Returns:
        (m,) float32, 0 or more.
    """
    device = deltas[0].device
    if device.type in elementary.NO_FLOAT64:
        deltas = [delta.cpu() for delta in deltas]
    mean = torch.zeros_like(deltas[0], dtype=torch.float64)
    squares = torch.zeros_like(mean)
    for index, delta in enumerate(deltas):
        apart = delta - mean
        mean += elementary.divide(apart, index + 1)
        squares += apart * (delta - mean)
    return elementary.divide(squares, len(deltas)).to(torch.float32).to(device)


def selection(changes: Rows, numel: int, select_topk: float) -> Cut:
    """Step 1: the cut among the variances.

    Args:
        changes: starts a pass over the tensor; yields the changes chunk by chunk.
        numel: entries of the tensor.
        select_topk: share of the entries that differ which are kept.

    Raises:
        NonFinite: a variance is NaN or infinite.
    """
    if select_topk >= 1:
        return KEEP_ALL
    count = sum(int(torch.count_nonzero(variance(chunk))) for chunk in changes())
    kept = int(count * max(select_topk, 0.0))
    if not kept:
        return KEEP_NONE
    return largest(lambda: ([variance(chunk)] for chunk in changes()), numel, [[kept]])[0][0]


def selected(deltas: Sequence[torch.Tensor], cut: Cut, start: int) -> list[torch.Tensor]:
    """The changes of one chunk, 0 where they are not selected.

    Args:
        deltas: n changes, each (m,) float32, not changed.
        start: index of the first entry in the tensor.

    Returns:
        n tensors, each (m,) float32. NaN stays NaN.
    """
    if cut == KEEP_ALL:
        return list(deltas)
    values = variance(deltas)
    inside = torch.cat(
        [
            nested(values[a - start : b - start], bounds, a)[0]
            for a, b, bounds in split([cut], start, start + values.numel())
        ]
    )
    return [torch.where(inside, delta, delta * 0.0) for delta in deltas]


def energies(deltas: Sequence[torch.Tensor]) -> np.ndarray:
    """Sums of squares of one chunk of selected changes; add up over chunks. (n,) float64."""
    return np.array([elementary.total(delta * delta) for delta in deltas])


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
        return (1.0 / len(means),) * len(means)
    return tuple((means / total).tolist())


def erase(deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Step 3, of one chunk of selected changes.

    Args:
        deltas: n changes, each (m,) float32, not changed.
        weights: n factors.

    Returns:
        (m,) float32. NaN stays NaN.
    """
    balance = torch.zeros_like(deltas[0])
    for delta in deltas:
        balance += delta
    total, divisor = torch.zeros_like(balance), torch.zeros_like(balance)
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = torch.where(balance >= 0, delta > 0, delta < 0)
        total += torch.where(agrees, delta * weight, 0.0)
        divisor += torch.where(agrees, weight, 0.0)
    return total / divisor.clamp(min=SMALLEST) + balance * 0.0


def merge(
    changes: Rows, numel: int, select_topk: float = 1.0, small: str = "equal"
) -> Iterator[torch.Tensor]:
    """The merged change of a tensor, in up to six passes that hold one chunk each.

    Args:
        changes: starts a pass over the tensor; yields the n changes chunk by chunk, (m,) float32.
        numel: entries of the tensor.

    Yields:
        (m,) float32, chunk by chunk.

    Raises:
        NonFinite: a change is NaN or infinite.
    """
    cut = selection(changes, numel, select_topk)
    sums = sum(energies(selected(chunk, cut, start)) for start, chunk in _placed(changes))
    shares = weights(np.asarray(sums), numel, small)
    for start, chunk in _placed(changes):
        yield erase(selected(chunk, cut, start), shares)


def _placed(changes: Rows) -> Iterator[tuple[int, Sequence[torch.Tensor]]]:
    """Chunks, and the index of their first entry."""
    start = 0
    for chunk in changes():
        yield start, chunk
        start += chunk[0].numel()


def decide(recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None) -> Eager:
    """Steps 1 and 2 in passes over the tensor; step 3 element by element."""
    needs = needs_of(decisions)

    def changes() -> Iterator[list[torch.Tensor]]:
        for start, stop in reader.spans(needs):
            yield reader.pruned(decisions, start, stop)

    cut = selection(changes, reader.numel, recipe.at("select_topk", reader.entry))
    sums = np.zeros(reader.experts)
    for start, chunk in _placed(changes):
        sums += energies(selected(chunk, cut, start))
    shares = weights(sums, reader.numel, recipe.parameters["small"])
    return Eager(lambda deltas, start: erase(selected(deltas, cut, start), shares))


METHODS = (
    Consensus(
        id="sce",
        title="SCE",
        summary="Select what varies most, weigh models by what is left, erase minority signs.",
        formula="top select_topk by variance; w_i = mean d_i^2; mean of w_i d_i that agree",
        paper="Wan et al. 2024, FuseChat, section 3.3",
        url="https://arxiv.org/abs/2408.07990",
        words="Of what they change differently take {select_topk}, weigh each by what is left and "
        "average those that agree.",
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
