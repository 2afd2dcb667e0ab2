"""NearSwap: take over what is close to the base, and of all else only a little.

Source: alchemonaut, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001, as mergekit 0.1.5
has it. For a change d of the one other model:

    merged = base + w d,   w = clip(t / max(|d|, 1e-6), 0, 1)

For t of 1e-6 and more that is a change cut off at t: entries that changed by up to t become the
other model's, all others move by t towards it. Element by element.
"""

from __future__ import annotations

from merging.later import torch

CLOSEST = 1e-6  # a change below this counts as this


def change(delta: torch.Tensor, t: float) -> torch.Tensor:
    """What is added to the base.

    Args:
        delta: (n,) float32, the other model's change, not changed.
        t: 0 or more, in units of the weights.

    Returns:
        (n,) float32.
    """
    closeness = torch.full_like(delta, t) / delta.abs().clamp(min=CLOSEST)
    return closeness.clamp(0.0, 1.0) * delta
