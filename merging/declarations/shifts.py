"""Densities per layer and linear, moved by their outliers: the arithmetic of `density_shift`.

Source: DPPA, arXiv 2403.02799, step 1, as its released code computes it; `methods/dynamic.py` gives
the steps by number, and says where we differ.
"""

from __future__ import annotations

import numpy as np

_ROUNDING = 1e-12  # shares of entries that differ by less are the same


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
    entries = np.concatenate([[0.0], np.cumsum(growth[:-1] * np.diff(amounts))])
    values = np.clip(rhos + np.interp(asked, entries, amounts), 0.0, 1.0)
    return np.where(values > 1.0 - _ROUNDING, 1.0, values)  # all but one entry is not all


def offsets(
    layers: np.ndarray, numels: np.ndarray, layer_counts: np.ndarray, linear_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Layer and linear offsets of one expert.

    Args:
        layers: (n,) layer index of each linear.
        numels: (n,) entries of each linear.
        layer_counts, linear_counts: (n,) outliers.

    Returns:
        Two (n,) float64 arrays in [-1, 1].
    """
    if not layers.size:
        return np.zeros(0), np.zeros(0)
    unique, position = np.unique(layers, return_inverse=True)
    total = np.bincount(position, weights=numels, minlength=unique.size)
    above = np.bincount(position, weights=layer_counts, minlength=unique.size)
    # divided before they become percent, as the authors' code: a rate's last bit can move a cut
    layer_rates = 100.0 * (above / np.maximum(total, 1))
    linear_rates = 100.0 * (linear_counts / np.maximum(numels, 1))
    return (
        layer_offsets(layer_rates)[position],
        linear_offsets(linear_rates, numels),
    )
