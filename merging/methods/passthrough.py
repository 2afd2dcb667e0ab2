"""Passthrough: one model's tensors, times a factor.

As mergekit 0.1.5, whose recipes stack layers of several models with it and scale some of their
tensors: merged = scale * x. Without a scale bytes are copied.
"""

from __future__ import annotations

from merging.later import torch


def scaled(values: torch.Tensor, scale: float | None) -> torch.Tensor:
    """One chunk times its factor; itself without one. (n,) float32."""
    return values if scale is None else values * scale
