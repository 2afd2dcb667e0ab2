"""TALL-masks and consensus merging: which parameters a task, or several, rely on.

Source: Wang et al., Localizing Task Information for Improved Model Merging and Compression, arXiv
2405.07813, sections 4 and 5. For the changes tau_t of T experts and a merged change m, their sum
or that of TIES (signs elected, agreeing ones added):

    M_t       = [|tau_t| > threshold * |m - tau_t|]
    task t    = base + M_t * m                                 (TALL-masks: one model per task)
    consensus = base + lambda * [sum_t M_t >= agreement] * m   (one model)

agreement 0 keeps everything, 1 drops what no task relies on (catastrophic weights), 2 also what
only one relies on (selfish weights), which is the paper's rule. The paper picks each task's
threshold among 0.2, 0.3, 0.4, 0.5 and 0.6 by validation, and lambda as task arithmetic does.

Where we differ: the released code compares models, |theta_0 - theta_t| with |theta_0 + m -
theta_t|, which rounds once more than the changes do; masks differ where both sides are equal but
for that rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.instructions.sums import add_up
from merging.later import torch

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)  # what the paper searches


def mask(change: torch.Tensor, merged: torch.Tensor, threshold: float) -> torch.Tensor:
    """M_t, what task t relies on.

    Args:
        change: tau_t; merged: m; float32 of one shape, not changed.
        threshold: at least 0; the higher, the fewer stay.

    Returns:
        bool of that shape.
    """
    return change.abs() > (merged - change).abs() * threshold


def task(
    base: torch.Tensor, merged: torch.Tensor, change: torch.Tensor, threshold: float
) -> torch.Tensor:
    """One task's parameters: base + M_t * m. float32 of one shape; NaN in m is seen."""
    return base + mask(change, merged, threshold) * merged


def consensus(
    changes: Sequence[torch.Tensor],
    thresholds: Sequence[float],
    agreement: int = 2,
    merged: torch.Tensor | None = None,
) -> torch.Tensor:
    """The merged change where enough tasks rely on it.

    Args:
        changes: T changes, each of one shape, float32, not changed.
        thresholds: one per expert.
        agreement: how many tasks must rely on a parameter, 0 to T; more than T keeps none.
        merged: m; the sum of the changes where None.

    Returns:
        float32 of the same shape, before lambda; NaN where m is NaN.
    """
    if merged is None:
        merged = add_up(changes, [1.0] * len(changes))
    votes = torch.zeros_like(merged, dtype=torch.int32)
    for change, threshold in zip(changes, thresholds, strict=True):
        votes += mask(change, merged, threshold)
    return merged * (votes >= agreement)
