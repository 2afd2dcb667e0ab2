"""A sum that tells whether bytes read back are the bytes that were written.

Over a tensor's bytes taken as signed 16-bit words w_i in regions of R = 128:
sum of w_i * (2 (i mod R) + 1) * (2 (i div R) + 1) mod 2**64. Pieces add up in any order; every
factor is odd, so that no single changed word goes unseen.
"""

from __future__ import annotations

import numpy as np

from merging import kernels

_MASK = (1 << 64) - 1
_REGION = 128
_AT_ONCE = 1 << 16  # words
_FACTORS = 2.0 * np.arange(_REGION) + 1.0


def checksum(data: memoryview, position: int, *, loop: bool | None = None) -> int:
    """The sum of one piece of a tensor.

    Args:
        data: contiguous bytes; an odd last byte counts as a word of its own.
        position: of the first byte in the tensor, even.
        loop: whether the C loop adds up, where there is one; None: where it is built already.
    """
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size % 2:
        raw = np.append(raw, np.uint8(0))
    if (kernels.is_built() if loop is None else loop) and (
        library := kernels.library()
    ) is not None:
        return int(library.amalgam_checksum(raw.ctypes.data, raw.size // 2, position // 2))
    first, into = divmod(position // 2, _REGION)
    words = raw.view(np.int16)
    total = 0
    for start in range(-into, words.size, _AT_ONCE):  # whole regions, the first maybe cut short
        block = np.zeros(_AT_ONCE, dtype=np.float64)
        piece = words[max(start, 0) : start + _AT_ONCE]
        block[max(-start, 0) : max(-start, 0) + piece.size] = piece
        sums = (block.reshape(-1, _REGION) @ _FACTORS).astype(np.int64)  # exact: below 2**53
        region = first + (start + into) // _REGION
        total += int((sums * (2 * np.arange(region, region + sums.size) + 1)).sum())
    return total & _MASK  # sums of a piece stay far below 2**63
