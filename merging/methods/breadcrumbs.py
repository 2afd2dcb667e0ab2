"""Model Breadcrumbs: drop the largest changes as outliers, and the small ones.

Source: Davari and Belilovsky, Model Breadcrumbs, arXiv 2312.06795. Per tensor of n entries, by
magnitude: the int(gamma n) largest go, the next int(density n) stay, the others go. That is two
rings, the first with factor 0 (`merging.instructions.pruning`). `breadcrumbs` adds the changes up;
`breadcrumbs_ties` elects signs first.

As mergekit 0.1.5: int(density n) stay always, so that fewer outliers go where gamma + density is
above 1; a density of 1 or more keeps everything, outliers too. The authors' code ranks within rows;
mergekit, as here, within tensors. Which of equal changes stay: `merging.selection.tied`.
"""

from __future__ import annotations


def counts(numel: int, density: float, gamma: float) -> tuple[int, int]:
    """How many of the largest entries are dropped, and how many of the next are kept.

    Args:
        numel: entries of the tensor.
        density: share kept, 0 or more.
        gamma: share of the largest dropped, in [0, 1].
    """
    if density >= 1:
        return 0, numel
    kept = int(density * numel)
    return min(int(gamma * numel), numel - kept), kept
