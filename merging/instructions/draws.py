"""Entries kept at random: the same ones for a seed, whatever the order, chunks or device.

The draw of an entry depends on two keys and its flat index in the tensor alone.
"""

from __future__ import annotations

from merging.later import torch

_BITS = 24  # resolution of a draw: densities differ in effect from 2**-24 on
RANGE = 1 << _BITS


def _mix(x: torch.Tensor) -> torch.Tensor:
    """A bijective 32-bit mixer (shifts and odd multipliers), on wrapping int32."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


def keep_mask(
    start: int, stop: int, density: float, keys: tuple[int, int], device: torch.device | str
) -> torch.Tensor:
    """Which of the entries [start, stop) of a tensor are kept.

    Args:
        density: probability of keeping, in [0, 1].
        keys: from `draw_keys`.

    Returns:
        (stop - start,) bool.
    """
    return kept_at(torch.arange(start, stop, device=device), *keys, limit(density))


def limit(density: float) -> int:
    """Draws below this are kept."""
    return round(density * RANGE)


def draw_at(
    index: torch.Tensor, first: int | torch.Tensor, second: int | torch.Tensor
) -> torch.Tensor:
    """The draws of some entries, uniform in [0, 2**24).

    Args:
        index: (n,) int64, flat indices in the tensor.
        first, second: the keys, numbers or int32 tensors without dimensions.

    Returns:
        (n,) int32.
    """
    high = (index >> 32).to(torch.int32)
    x = _mix(index.to(torch.int32) ^ first)
    x = _mix(x + second + high * 0x632BE5AB)
    return (x >> (32 - _BITS)) & (RANGE - 1)


def kept_at(
    index: torch.Tensor,
    first: int | torch.Tensor,
    second: int | torch.Tensor,
    below: int | torch.Tensor,
) -> torch.Tensor:
    """Which of some entries are kept.

    Args:
        index, first, second: see `draw_at`.
        below: from `limit`: one for all, or (n,) int32, one for each entry.

    Returns:
        (n,) bool.
    """
    return draw_at(index, first, second) < below


def drop(delta: torch.Tensor, keep: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
    """Returns delta * scale where kept, 0 elsewhere. delta (n,) float32, keep (n,) bool.

    What is not finite is dropped to NaN, so that it is seen.
    """
    return torch.where(keep, delta * scale, delta * 0.0)
