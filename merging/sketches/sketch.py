"""Magnitude sketches: what every slider needs to know of a family, without its weights.

Per expert and tensor: a histogram of |delta| with counts, L1 and L2 per bin, exact zeros and
extremes, and the counts of outliers that dynamic pruning asks for. Bins are an eighth of an
octave wide at most (the float's exponent and top three mantissa bits), so a cut interpolated
inside one bin is off by a small part of one bin's share.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

SUB_BITS = 3  # bins per octave: 2**3
LOW_EXPONENT = -40  # below 2**-40 everything falls into the first bin
HIGH_EXPONENT = 16  # from 2**16 on everything falls into the last bin
N_BINS = (HIGH_EXPONENT - LOW_EXPONENT) << SUB_BITS
N_FINE = 16  # fine bins per bin: those of a float's upper 16 bits
_SHIFT = 23 - SUB_BITS  # float32 has 23 mantissa bits
FIRST_KEY = (127 + LOW_EXPONENT) << SUB_BITS  # bits >> _SHIFT of 2**LOW_EXPONENT


def bin_edges() -> np.ndarray:
    """Edges of the magnitude bins, (N_BINS + 1,) float64, ascending."""
    index = np.arange(N_BINS + 1)
    octave, step = index >> SUB_BITS, index & ((1 << SUB_BITS) - 1)
    return np.ldexp(1.0 + step / (1 << SUB_BITS), octave + LOW_EXPONENT)


@functools.cache
def fine_edges() -> np.ndarray:
    """Edges of the fine bins, N_FINE in each bin, (N_BINS * N_FINE + 1,) float64, ascending."""
    edges = bin_edges()
    steps = np.arange(N_FINE) / N_FINE
    inner = edges[:-1, None] + (edges[1:] - edges[:-1])[:, None] * steps
    return np.append(inner.reshape(-1), edges[-1])


@dataclass(frozen=True)
class SketchedTensor:
    """One tensor that is merged: its name, its number of entries, and where it sits (`Place`)."""

    name: str
    layer: int | None
    module: str
    is_linear: bool
    numel: int
    stack: str
    depth: int

    @property
    def title(self) -> int | str | None:
        """As `Place.title`."""
        return f"{self.stack} {self.layer}" if self.stack and self.layer is not None else self.layer


@dataclass(frozen=True)
class FamilySketch:
    """Everything the plan and the plots need. E experts, T tensors, B = N_BINS bins.

    Attributes:
        base: the base's name.
        experts: E names, in the family's order.
        tensors: T tensors, sorted by name.
        counts: (E, T, B) int64, non-zero entries per bin of |delta|.
        l1: (E, T, B) float64, sum of |delta| per bin: within 1 % in a bin, exact over all.
        l2: (E, T, B) float64, sum of delta squared per bin: likewise, within 2 %.
        fine: (E, T, B, N_FINE) int32, non-zero entries per fine bin.
        ties: (E, T, B, N_FINE) int32, those of `fine` that equal its lower edge: half precision
            makes many changes equal.
        zeros: (E, T) int64, entries equal to the base.
        max_abs: (E, T) float64, largest |delta|.
        layer_outliers: (E, T) int64, entries above layer_outlier times the mean of their layer's
            pooled linears; 0 for other tensors.
        linear_outliers: (E, T) int64, entries of linears above linear_outlier times their own
            mean; 0 for other tensors.
        layer_outlier, linear_outlier: the multiples counted.
        dots: (E, E, T) float64, inner products of the experts' deltas.
        base_l2: (T,) float64, sum of squares of the base's tensor.
        sample: (E, S) float32, deltas at S positions spread evenly over the family.
        sample_base: (S,) float32, the base's values there.
        sample_tensor: (S,) int64, index into `tensors` of each sampled position.
        exact: False for a preview made from part of the entries.
        seconds: how long the scan took.
        fingerprint: of the inputs; the cache's key.
    """

    base: str
    experts: tuple[str, ...]
    tensors: tuple[SketchedTensor, ...] = field(repr=False)
    counts: np.ndarray = field(repr=False)
    l1: np.ndarray = field(repr=False)
    l2: np.ndarray = field(repr=False)
    fine: np.ndarray = field(repr=False)
    ties: np.ndarray = field(repr=False)
    zeros: np.ndarray = field(repr=False)
    max_abs: np.ndarray = field(repr=False)
    layer_outliers: np.ndarray = field(repr=False)
    linear_outliers: np.ndarray = field(repr=False)
    layer_outlier: float
    linear_outlier: float
    dots: np.ndarray = field(repr=False)
    base_l2: np.ndarray = field(repr=False)
    sample: np.ndarray = field(repr=False)
    sample_base: np.ndarray = field(repr=False)
    sample_tensor: np.ndarray = field(repr=False)
    exact: bool
    seconds: float
    fingerprint: str

    @property
    def numel(self) -> np.ndarray:
        """(T,) int64, entries per tensor."""
        return np.array([tensor.numel for tensor in self.tensors], dtype=np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory that the arrays take."""
        return sum(one.nbytes for one in vars(self).values() if isinstance(one, np.ndarray))

    @property
    def edges(self) -> np.ndarray:
        """(B + 1,) float64 bin edges of |delta|."""
        return bin_edges()

    @property
    def sum_abs(self) -> np.ndarray:
        """(E, T) float64, L1 norm of each delta."""
        return self.l1.sum(axis=2)
