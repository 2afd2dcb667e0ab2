"""The sketch's bins: where they lie. What falls into them is for `test_scan` to say."""

from __future__ import annotations

import pytest

from merging.sketches.sketch import N_BINS, N_FINE, bin_edges, fine_edges


def test_edges_ascend_by_at_most_an_eighth() -> None:
    edges = bin_edges()
    assert edges.shape == (449,)
    ratios = edges[1:] / edges[:-1]
    assert ratios.min() > 1.06
    assert ratios.max() == 1.125


@pytest.mark.parametrize(
    ("index", "edge"),
    [
        (0, 2.0**-40),
        (1, 1.125 * 2.0**-40),
        (312, 0.5),
        (319, 0.9375),
        (320, 1.0),
        (321, 1.125),
        (327, 1.875),
        (328, 2.0),
        (447, 61440.0),
        (448, 65536.0),
    ],
)
def test_an_octave_has_eight_edges(index: int, edge: float) -> None:
    assert bin_edges()[index] == edge


def test_a_bin_has_sixteen_fine_ones() -> None:
    assert fine_edges().shape == (N_BINS * N_FINE + 1,) == (7169,)
    assert fine_edges()[::N_FINE].tolist() == bin_edges().tolist()
    assert fine_edges()[320 * 16 + 1] == 1.0078125  # 1 + 1/8/16
    assert fine_edges()[327 * 16 + 15] == 1.9921875  # 2 - 1/8/16
