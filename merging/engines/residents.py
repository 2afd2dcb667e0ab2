"""The family that stays in a device's memory from one merge to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable

from merging.checkpoints import Family
from merging.engines.sources import Files, KeptFamily, RawTensors, family_key, fits
from merging.later import torch


class Residents:
    """Keeps the family that was merged last in its device's memory, where it fits.

    Whoever merges more than once, as the app does, has one; it may be shared between threads. With
    the last reference to it the memory is free again.

    Args:
        fits: whether a device's free memory holds a family.
    """

    def __init__(self, fits: Callable[[Family, str], bool] = fits) -> None:
        self._fits = fits
        self._family: KeptFamily | None = None
        self._lock = threading.Lock()

    def source(self, family: Family, device: str) -> RawTensors:
        """The family in the device's memory, read if it is not there yet; its files where it does
        not fit."""
        with self._lock:
            resident = self._family
            if resident and resident.device == device and resident.key == family_key(family):
                return resident
            del resident
            self._let_go(device)
            if not self._fits(family, device):
                return Files(device)
            self._family = KeptFamily(family, device)
            return self._family

    def release(self, device: str) -> None:
        """Lets go of the family in a device's memory, and of what torch holds in reserve."""
        with self._lock:
            self._let_go(device)

    def _let_go(self, device: str) -> None:
        self._family = None
        if device.startswith("cuda"):
            torch.cuda.empty_cache()  # else the driver counts it as taken


__all__ = ["Residents"]
