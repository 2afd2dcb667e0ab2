"""Random pruning (DARE): drop changes at random, rescale what is left.

Source: Yu et al., arXiv 2311.03099, eq. 2-4: m ~ Bernoulli(p), delta' = (1 - m) * delta / (1 - p).
`rescale_by: l1` divides by the kept share of the L1 norm instead, as mergekit does.
The draw for an entry depends on (seed, model, tensor name, flat index) alone, so order, sharding,
chunking and device change nothing. The model counts by its folder's name, wherever that lies.
"""

from __future__ import annotations

import hashlib

from merging.later import torch
from merging.methods.registry import DENSITY, Axis, Knob

AXIS = Axis(
    id="random",
    kind="prune",
    title="Random",
    summary="Drop changes at random and rescale the rest.",
    formula="keep each entry with probability density; delta / density",
    paper="Yu et al. 2023, Language Models are Super Mario (DARE), eq. 2-4",
    url="https://arxiv.org/abs/2311.03099",
    knobs=(
        DENSITY,
        Knob("rescale", "Rescale", True, "Divide what is kept so that its sum is preserved."),
        Knob(
            "rescale_by", "Rescale by", "density",
            "density: divide by the density (paper). l1: match the tensor's L1 norm (mergekit).",
            choices=("density", "l1"),
        ),
        Knob("seed", "Seed", 0, "Same seed, same draw.", low=0, high=2**31 - 1, step=1),
    ),
)  # fmt: skip

_BITS = 24  # resolution of a draw: densities differ in effect from 2**-24 on


def draw_keys(seed: int, model: str, tensor: str) -> tuple[int, int]:
    """Two 32-bit keys (signed) that start the draws of one tensor of one model."""
    digest = hashlib.blake2b(f"{seed}\0{model}\0{tensor}".encode(), digest_size=8).digest()
    return (
        int.from_bytes(digest[:4], "little", signed=True),
        int.from_bytes(digest[4:], "little", signed=True),
    )


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
    return round(density * (1 << _BITS))


def kept_at(
    index: torch.Tensor, first: int | torch.Tensor, second: int | torch.Tensor,
    below: int | torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Which of some entries are kept.

    Args:
        index: (n,) int64, flat indices in the tensor.
        first, second: the keys, numbers or int32 tensors without dimensions.
        below: from `limit`.

    Returns:
        (n,) bool.
    """
    high = (index >> 32).to(torch.int32)
    x = _mix(index.to(torch.int32) ^ first)
    x = _mix(x + second + high * 0x632BE5AB)
    return ((x >> (32 - _BITS)) & ((1 << _BITS) - 1)) < below


def drop(delta: torch.Tensor, keep: torch.Tensor, scale: float | torch.Tensor) -> torch.Tensor:
    """Returns delta * scale where kept, 0 elsewhere. delta (n,) float32, keep (n,) bool.

    What is not finite is dropped to NaN, so that it is seen.
    """
    return torch.where(keep, delta * scale, delta * 0.0)
