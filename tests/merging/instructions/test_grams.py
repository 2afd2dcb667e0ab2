"""Gram matrices: inner products in float64, of chunks, rows and columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.errors import NonFinite
from merging.instructions import grams

A = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
B = torch.tensor([[3.0, 0.0], [4.0, 1.0]])


def test_inner_products_of_whole_tensors_rows_and_columns() -> None:
    assert grams.gram([A, B]).tolist() == [[6.0, 2.0], [2.0, 26.0]]
    assert grams.of_rows([A, B])[..., 0].tolist() == [[5.0, 3.0], [3.0, 9.0]]
    assert grams.of_rows([A, B])[..., 1].tolist() == [[1.0, -1.0], [-1.0, 17.0]]
    assert grams.of_rows([A, B], along=0)[..., 1].tolist() == [[5.0, -1.0], [-1.0, 1.0]]


def test_chunks_of_whole_blocks_give_the_bits_of_the_tensor() -> None:
    points = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0)).unbind()
    whole = grams.gram(points)
    total = np.zeros((3, 3))
    for start, stop in ((0, 512), (512, 1536), (1536, 2000)):
        total = grams.added(total, [point[start:stop] for point in points])
    assert total.tobytes() == whole.tobytes()
    assert np.allclose(whole, np.array([[float(a @ b) for b in points] for a in points]), rtol=1e-5)


def test_a_block_is_added_up_in_lanes_whose_halves_meet() -> None:
    # 1e16 + 1 is 1e16 in float64: where the ones meet first, they count
    ones = torch.zeros(1, 512, dtype=torch.float64)
    ones[0, 0], ones[0, 32], ones[0, 64] = 1e16, 1.0, 1.0  # one lane, one after the other
    assert grams.sums_of_blocks(ones.clone()).item() == 1e16
    ones[0, 32], ones[0, 64], ones[0, 1], ones[0, 17] = 0.0, 0.0, 1.0, 1.0  # lanes 1 and 17 meet
    assert grams.sums_of_blocks(ones.clone()).item() == 1e16 + 2


def test_products_are_not_rounded_to_float32() -> None:
    # 1 + 2**-23 squared needs 47 bits; a float32 product loses the last of them
    value = 1.0 + 2.0**-23
    assert grams.gram([torch.tensor([value])])[0, 0] == value * value


def test_models_follow_from_the_base_and_their_changes() -> None:
    base, first, second = torch.randn(3, 50, generator=torch.Generator().manual_seed(1)).unbind()
    expected = grams.gram([base, base + first, base + second])
    found = grams.of_models(grams.gram([base, first, second]))
    assert np.allclose(found, expected, rtol=1e-5)
    # a change of a thousandth of a millionth is seen, though no float32 sum would hold it
    tiny = first * 1e-9
    parts = grams.gram([base, tiny])
    moved = grams.of_models(parts)
    assert moved[1, 1] - moved[0, 0] == pytest.approx(2 * parts[0, 1], rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(NonFinite):
        grams.lengths(grams.gram([torch.tensor([1.0, value]), torch.ones(2)]))


def test_combining_takes_a_coefficient_a_row_or_a_column() -> None:
    by_row = grams.combine([A, B], np.array([[[1.0], [2.0]], [[0.0], [-1.0]]]))
    assert by_row.tolist() == [[1.0, 2.0], [-4.0, -3.0]]
    by_column = grams.combine([A, B], np.array([[[1.0, 2.0]], [[0.0, -1.0]]]))
    assert by_column.tolist() == [[1.0, 4.0], [0.0, -3.0]]
