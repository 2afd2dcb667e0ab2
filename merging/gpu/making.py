"""Kernels are made by one thread at a time: whoever launches one holds this."""

from __future__ import annotations

import threading

making = threading.Lock()

__all__ = ["making"]
