"""torch, imported when it is first used.

Importing torch takes a second. The command line's help, a preflight and a merge through the fused
loops never use it; with `from merging.later import torch` they never wait for it either.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
else:

    class _Torch:
        def __getattr__(self, name: str) -> Any:
            import torch as module

            value = getattr(module, name)
            setattr(self, name, value)  # the next use costs a dictionary lookup
            return value

    torch = _Torch()


def is_loaded() -> bool:
    """True where torch is in memory already."""
    return "torch" in sys.modules


__all__ = ["is_loaded", "torch"]
