"""Which device the arithmetic happens on."""

from __future__ import annotations

import os

from merging.errors import DeviceUnavailable
from merging.later import torch


def pick_device(name: str = "auto") -> str:
    """The device for the arithmetic: cpu, cuda or mps (Apple's GPU, only where asked for).

    torch is asked for CUDA only where the driver's device files are there.

    Raises:
        DeviceUnavailable: there is no such device.
    """
    if name == "auto":
        return "cuda" if _has_cuda() else "cpu"
    if name == "cuda" and not _has_cuda():
        raise DeviceUnavailable("device cuda: no CUDA GPU is present; use --device cpu or auto")
    if name == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("device mps: no Apple GPU is present; use --device cpu or auto")
    if name not in ("cpu", "cuda", "mps"):
        raise DeviceUnavailable(f"device {name}: not known; valid: auto, cpu, cuda, mps")
    return name


def _has_cuda() -> bool:
    drivers = ("/dev/nvidiactl", "/dev/dxg")
    return any(os.path.exists(path) for path in drivers) and torch.cuda.is_available()
