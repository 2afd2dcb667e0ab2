"""The memory that loaded models share: one budget for chat and for live models of all pages.

What was not used for longest is let go of first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass
class _Holder:
    size: int
    let_go: Callable[[], object]
    is_loading: bool = True


class Room:
    """Who holds how much of a budget. Safe to share between threads.

    Args:
        budget_bytes: memory that all may hold together; one that is asked for alone may be larger.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._holders: OrderedDict[Hashable, _Holder] = OrderedDict()
        self._changed = threading.Condition()  # guards them

    def reserve(self, key: Hashable, size: int, let_go: Callable[[], object]) -> None:
        """Takes room for what is about to be loaded: from holders that were not used for long, or
        by waiting for those that are being loaded.

        Args:
            let_go: called, from any thread, once the room is another's.
        """
        with self._changed:
            while True:
                for other in [k for k, one in self._holders.items() if not one.is_loading]:
                    if self._taken() + size <= self.budget_bytes:
                        break
                    self._holders.pop(other).let_go()
                is_loading = any(one.is_loading for one in self._holders.values())
                if not is_loading or self._taken() + size <= self.budget_bytes:
                    break
                self._changed.wait()
            self._holders[key] = _Holder(size, let_go)

    def settle(self, key: Hashable, size: int) -> None:
        """What was loaded is there, and holds so much."""
        with self._changed:
            holder = self._holders.get(key)
            if holder is not None:
                holder.size, holder.is_loading = size, False
                self._changed.notify_all()

    def touch(self, key: Hashable) -> None:
        """It is used now."""
        with self._changed:
            if key in self._holders:
                self._holders.move_to_end(key)

    def free(self, key: Hashable) -> None:
        """It holds nothing any more."""
        with self._changed:
            self._holders.pop(key, None)
            self._changed.notify_all()

    def held_bytes(self, but: Hashable = None) -> int:
        """What all but one hold."""
        with self._changed:
            return sum(one.size for key, one in self._holders.items() if key != but)

    def empty(self, but: Hashable = None) -> int:
        """Lets go of all but one, and of those that are being loaded; the bytes that they held."""
        with self._changed:
            idle = [k for k, one in self._holders.items() if k != but and not one.is_loading]
            holders = [self._holders.pop(key) for key in idle]
            for holder in holders:
                holder.let_go()
            return sum(holder.size for holder in holders)

    def _taken(self) -> int:
        return sum(one.size for one in self._holders.values())
