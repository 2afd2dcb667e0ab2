"""What one pass of the collecting loop tells, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest

from merging import kernels
from merging.selection.collected import SECTION, Collected
from merging.selection.tied import places

VALUES = np.array([0.0, 0.25, 0.5, 1.0, 2.0], dtype=np.float32)
ONE, HALF = (int(value.view(np.uint32)) for value in (VALUES[3], VALUES[2]))
SINGLE = [(HALF + 1, ONE - 1), (ONE, ONE), (ONE + 1, ONE + 9)]
WIDE = [(HALF, ONE)]


def collected(
    changes: np.ndarray, wanted: list[tuple[int, int]], room: int, step: int
) -> Collected:
    """Passes over some changes of a base of zeros, `step` at a time."""
    base = np.zeros_like(changes)
    found = Collected(wanted, room, changes.size, lambda slot, size: np.empty(size, np.uint8))
    for start in range(0, changes.size, step):
        here = slice(start, start + step)
        kernels.library().amalgam_collect(
            base[here].ctypes.data, 0, changes[here].ctypes.data, 0, start,
            changes[here].size, *found.arguments(),
        )  # fmt: skip
    return found


def changes_of(count: int) -> np.ndarray:
    rng = np.random.default_rng(count)
    return rng.choice(VALUES, count) * rng.choice(np.array([-1, 1], dtype=np.float32), count)


@pytest.mark.parametrize("count", [1, 513, SECTION + 700])
@pytest.mark.parametrize("wanted", [SINGLE, WIDE])
def test_counts_are_those_of_all_entries(count: int, wanted) -> None:
    bits = np.abs(changes_of(count)).view(np.uint32)
    inside = collected(changes_of(count), wanted, count, 1 << 18).inside()
    assert [(one.low, one.high) for one in inside] == wanted
    for one in inside:
        assert one.above == (bits > one.high).sum()
        assert one.size == ((one.low <= bits) & (bits <= one.high)).sum()


@pytest.mark.parametrize("count", [513, SECTION + 700])
@pytest.mark.parametrize("wanted", [SINGLE, WIDE])
def test_the_nth_of_equal_entries_is_the_one_of_the_nth_lowest_place(count: int, wanted) -> None:
    changes = changes_of(count)
    found = collected(changes, wanted, count, 1 << 18)
    found.inside()
    equal = np.flatnonzero(np.abs(changes) == 1.0)
    in_order = equal[places(equal).argsort()]
    for nth in (1, 2, equal.size // 3, equal.size):
        seen = found.candidates(ONE, nth)
        assert seen.indices.size <= SECTION // 512
        assert seen.indices[np.abs(changes[seen.indices]) == 1.0][seen.nth - 1] == in_order[nth - 1]


def test_a_magnitude_outside_the_brackets_was_not_seen() -> None:
    found = collected(changes_of(2000), SINGLE, 2000, 512)
    assert found.inside() is not None
    assert found.candidates(HALF, 1) is None


def test_a_bracket_that_is_too_wide_says_so_and_writes_no_further() -> None:
    changes = np.full(4096, 1.0, dtype=np.float32)
    beyond = {slot: np.full(1 << 20, 7, dtype=np.uint8) for slot in range(3)}
    found = Collected(WIDE, 100, changes.size, lambda slot, size: beyond[slot])
    base = np.zeros_like(changes)
    kernels.library().amalgam_collect(
        base.ctypes.data, 0, changes.ctypes.data, 0, 0, 4096, *found.arguments()
    )
    assert found.inside() is None
    assert (beyond[0][4 * 132 :] == 7).all() and (beyond[1][4 * 132 :] == 7).all()
