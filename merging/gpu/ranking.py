"""Ranks within rows that stay in a GPU's memory, for draws by rank (`instructions.ranked`).

They depend on base and expert alone, so a tensor that stays is ranked once: 16 bits an entry. In a
plane of its own lie the upper 8, which tell nearly every draw (`drawing_kernels`); only where they
leave a doubt are the lower 8 read.
"""

from __future__ import annotations

from merging.instructions.ranked import twice_ranks
from merging.later import torch

WIDEST = 1 << 15  # entries of a row: twice a rank fits 16 bits
BYTES = 2  # per entry
ALIGNED = 16  # entries: the second plane begins at a multiple of so many
_AT_ONCE = 1 << 24  # entries sorted at a time


def shift(columns: int) -> int:
    """How far twice a rank in a row of so many entries is moved to fill 16 bits."""
    return 16 - max(2 * (columns - 1), 1).bit_length()


def planes(base: torch.Tensor, expert: torch.Tensor, columns: int) -> torch.Tensor:
    """Twice the mean ranks of one expert's changes, moved by `shift`. Nothing waits for the device.

    Args:
        base, expert: (n,) raw values on one device; n < 2**31, whole rows.
        columns: entries of a row, up to WIDEST.

    Returns:
        uint8 on that device: n upper halves, ALIGNED, then n lower halves.
    """
    numel = base.numel()
    second = -(-numel // ALIGNED) * ALIGNED
    result = torch.zeros(second + numel, dtype=torch.uint8, device=base.device)
    step = max(_AT_ONCE // columns, 1) * columns
    for start in range(0, numel if columns > 1 else 0, step):
        stop = min(start + step, numel)
        delta = expert[start:stop].float() - base[start:stop].float()
        moved = twice_ranks(delta.view(-1, columns)).flatten() << shift(columns)
        result[start:stop] = (moved >> 8).to(torch.uint8)
        result[second + start : second + stop] = (moved & 0xFF).to(torch.uint8)
    return result
