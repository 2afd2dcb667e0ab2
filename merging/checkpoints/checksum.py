"""A sum that tells whether bytes read back are the bytes that were written.

Over a tensor's bytes taken as 16-bit words w_i: sum of w_i * (2 i + 1) mod 2**64, the factor mod
2**32. Pieces add up in any order; every factor is odd, so that no single changed word goes unseen.
"""

from __future__ import annotations

import numpy as np

from merging import kernels

_MASK = (1 << 64) - 1


def checksum(data: memoryview, position: int) -> int:
    """The sum of one piece of a tensor.

    Args:
        data: contiguous bytes; an odd last byte counts as a word of its own.
        position: of the first byte in the tensor, even.
    """
    raw = np.frombuffer(data, dtype=np.uint8)
    if raw.size % 2:
        raw = np.append(raw, np.uint8(0))
    if kernels.is_built() and (library := kernels.library()) is not None:
        return int(library.amalgam_checksum(raw.ctypes.data, raw.size // 2, position // 2))
    words = raw.view(np.uint16).astype(np.uint64)
    index = np.arange(position // 2, position // 2 + words.size, dtype=np.uint64)
    factors = (2 * index + 1) & np.uint64(0xFFFFFFFF)
    return int((words * factors).sum(dtype=np.uint64)) & _MASK
