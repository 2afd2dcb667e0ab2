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
    words = raw.view(np.int16).astype(np.int64)
    index = np.arange(position // 2, position // 2 + words.size)
    factors = (2 * (index % _REGION) + 1) * (2 * (index // _REGION) + 1)
    return int((words * factors).sum()) & _MASK  # integers wrap around, as the loop's
