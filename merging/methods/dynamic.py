"""Dynamic pruning, the DP of DPPA: densities set per layer and per linear by their outliers.

Source: arXiv 2403.02799, step 1, and its released code, whose masks `tie_rule: drop` reproduces bit
for bit. A layer or linear with more outlying changes keeps more of them.

For one expert, with d = delta, W = |d|, s = 1 - density, shift = `density_shift`:
1. layer outlier rate  r_l  = share of W > layer_outlier * mean(W), all linears of block l pooled;
2. layer offset        A_l  = (r_l - mean r) / max|r - mean r|;
3. linear outlier rate q_lk = share of W > linear_outlier * mean(W), per linear;
4. linear offset       u = q / mean(q); u -= sum(n u) / sum(n); B = u / max|u|  (n: entries);
5. density             rho_lk = (1 - s) + shift * A_l + shift * B_lk;
6. keep W > sorted(W)[int(n * (1 - rho_lk))]: strictly above, every tie at the cut is dropped.

Where we differ: step 6 drops most of what it should keep where changes take few distinct values, as
they do between bfloat16 checkpoints. By default (`tie_rule: spread`) exactly int(rho_lk * n)
entries stay, at least one where rho_lk is above 0; of equal ones at the cut some, spread evenly
over the linear (`selection.tied`). A rho below 0 or above 1 ends there, and the others move by one
amount, so that the whole keeps the density asked for (`fitted`). With `tie_rule: drop` ties go and
rho is only clipped. Equal rates give offset 0 (not NaN). Embeddings, norms and heads are not
pruned; `scale_dense` says what becomes of their delta.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.declarations.knobs import AMPLIFICATION, DENSITY, PARTITION_MODE, Axis, Knob, Law

_ROUNDING = 1e-12  # shares of entries that differ by less are the same

AXIS = Axis(
    id="dynamic",
    kind="prune",
    title="Dynamic",
    summary="Keep the largest changes, more of them where a layer or linear has outliers.",
    formula="density per linear = density + shift * layer offset + shift * linear offset",
    paper="Zhu et al. 2024, DPPA, step 1 (dynamic pruning)",
    url="https://arxiv.org/abs/2403.02799",
    words="Keep about {kept}, more where layers have outliers.",
    law=Law("largest", linears=True),
    knobs=(
        DENSITY,
        AMPLIFICATION,
        PARTITION_MODE,
        Knob(
            "density_shift", "Density shift", 0.08,
            "How far the density may move by layer, and again by linear.",
            low=0.0, high=0.2, step=0.01, unit="share of entries",
        ),
        Knob(
            "layer_outlier", "Layer outlier", 3.0,
            "A change above this many means counts as an outlier of its layer.",
            low=1.0, high=10.0, step=0.5, unit="means",
        ),
        Knob(
            "linear_outlier", "Linear outlier", 5.0,
            "A change above this many means counts as an outlier of its linear.",
            low=1.0, high=10.0, step=0.5, unit="means",
        ),
        Knob(
            "scale_dense", "Unpruned tensors", "one",
            "Embeddings, norms and heads: add their change once, times the largest factor, or not.",
            choices=("one", "max", "none"),
        ),
        Knob(
            "tie_rule", "Equal changes at the cut", "spread",
            "spread: keep as many as asked for, evenly placed. drop: none of them (authors' code).",
            choices=("spread", "drop"),
        ),
    ),
)  # fmt: skip


def layer_offsets(rates: np.ndarray) -> np.ndarray:
    """A_l of step 2.

    Args:
        rates: (n_layers,) layer outlier rates, any common unit.

    Returns:
        (n_layers,) float64 in [-1, 1]; all 0 where the rates are equal.
    """
    centred = rates - rates.mean() if rates.size else rates
    return _divide_by_largest(centred)


def linear_offsets(rates: np.ndarray, numels: np.ndarray) -> np.ndarray:
    """B_lk of step 4, over all linears of the model.

    Args:
        rates: (n_linears,) linear outlier rates.
        numels: (n_linears,) entries of each linear.

    Returns:
        (n_linears,) float64 in [-1, 1]; all 0 where the rates are equal or all 0.
    """
    if not rates.size or rates.mean() == 0:
        return np.zeros_like(rates)
    relative = rates / rates.mean()
    relative = relative - (numels * relative).sum() / numels.sum()
    return _divide_by_largest(relative)


def _divide_by_largest(values: np.ndarray) -> np.ndarray:
    largest = np.abs(values).max() if values.size else 0.0
    # equal rates leave rounding noise of order 1e-16, which must not be blown up to +-1
    return values / largest if largest > 1e-12 else np.zeros_like(values)


def densities(
    density: float | np.ndarray, shift: float, layer: np.ndarray, linear: np.ndarray
) -> np.ndarray:
    """rho_lk of step 5, before clipping.

    Args:
        density: share kept on average, in [0, 1]; one, or (n_linears,).
        shift: `density_shift`.
        layer, linear: (n_linears,) the offsets A_l (repeated per linear) and B_lk.

    Returns:
        (n_linears,) float64.
    """
    # 1 - s with s = 1 - density in doubles, as the released code gets it from its sparsity
    sparsity = np.array([round(1.0 - one, 12) for one in np.atleast_1d(density).tolist()])
    return (1.0 - sparsity) + shift * layer + shift * linear


def fitted(rhos: np.ndarray, numels: np.ndarray, densities: np.ndarray) -> np.ndarray:
    """Densities in [0, 1] that differ as the rhos do and keep what was asked for as a whole.

    All move by one amount and end at 0 and 1; the amount is such that the mean over all entries is
    that of `densities`. Nothing moves where the rhos already are so.

    Args:
        rhos: (n,) float64, densities by step 5.
        numels: (n,) entries of each linear.
        densities: (n,) the densities asked for, in [0, 1], before any shift.

    Returns:
        (n,) float64 in [0, 1].
    """
    asked, total = float(numels @ densities), float(numels.sum())
    values = np.clip(rhos, 0.0, 1.0)
    if abs(asked - numels @ values) <= _ROUNDING * total:
        return values
    # What is kept grows with the amount, in straight pieces between the amounts at which a linear
    # leaves 0, and grows with all its entries, or reaches 1: find the piece, then the place in it.
    amounts = np.concatenate([-rhos, 1.0 - rhos])
    order = np.argsort(amounts, kind="stable")
    amounts = amounts[order]
    growth = np.cumsum(np.concatenate([numels, -numels])[order])
    kept = np.concatenate([[0.0], np.cumsum(growth[:-1] * np.diff(amounts))])
    return np.clip(rhos + np.interp(asked, kept, amounts), 0.0, 1.0)


def cut_rank(numel: int, rho: float) -> int:
    """Ascending rank of the cut T of step 6; entries strictly above it are kept.

    Returns:
        rank in [0, numel), or -1 to keep everything (rho >= 1), or numel to keep nothing.
    """
    if rho >= 1.0:
        return -1
    if rho <= 0.0:
        return numel
    return min(int(numel * (1.0 - rho)), numel)


def dense_factor(scale_dense: str, factors: Sequence[float]) -> float:
    """Factor on the delta of tensors that are not pruned."""
    return {"one": 1.0, "max": max(factors), "none": 0.0}[scale_dense]
