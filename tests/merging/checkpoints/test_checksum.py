"""The sum that verifying compares: by hand, in pieces, by both ways of adding up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from merging import kernels
from merging.checkpoints.checksum import checksum


@pytest.fixture(params=[True, False], ids=["loop", "numpy"])
def added(request) -> Callable[[memoryview, int], int]:
    assert kernels.library() is not None
    return partial(checksum, loop=request.param)


def test_by_hand(added) -> None:
    # words 1, 2, 0x0103 at index 0, 1, 2: 1 * 1 + 2 * 3 + 259 * 5
    assert added(memoryview(bytes([1, 0, 2, 0, 3, 1])), 0) == 1302
    assert added(memoryview(bytes([1, 0])), 6) == 7  # index 3
    assert added(memoryview(bytes([4])), 0) == 4  # an odd end is a word
    assert added(memoryview(b""), 10) == 0


def test_regions_have_factors_of_their_own(added) -> None:
    region = 128  # words
    one = memoryview(bytes([1, 0]))
    assert added(one, 2 * (region - 1)) == 2 * (region - 1) + 1
    assert added(one, 2 * region) == 1 * 3
    assert added(one, 2 * (5 * region + 2)) == 5 * 11
    assert added(memoryview(bytes([1, 0, 1, 0])), 2 * (region - 1)) == 2 * region - 1 + 3
    assert added(memoryview(bytes([255, 255])), 2) == (-1 * 3) % (1 << 64)  # words have signs


@pytest.mark.parametrize(
    ("size", "step"), [(5001, 2), (5001, 14), (5001, 1000), (400_001, 150_002)]
)
def test_pieces_add_up_in_any_order(added, size: int, step: int) -> None:
    data = torch.randint(256, (size,), generator=torch.Generator().manual_seed(0))
    raw = memoryview(data.to(torch.uint8).numpy())
    pieces = [added(raw[at : at + step], at) for at in range(0, len(raw), step)]
    assert sum(reversed(pieces)) % (1 << 64) == added(raw, 0)
