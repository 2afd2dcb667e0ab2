"""Work on a thread of its own, whose progress a page can tell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from merging.engines.eager import Progress

_LOOK_S = 0.1  # between two looks at how far it is


@dataclass
class Work:
    """One piece of work.

    Attributes:
        name: of its thread.
        share: how much of it is done, 0..1, by what it reports.
        result: what it returned.
    """

    name: str
    share: float = 0.0
    result: Any = None
    error: BaseException | None = field(default=None, repr=False)

    def report(self, progress: Progress) -> None:
        """Called by the work."""
        self.share = progress.done / max(progress.total, 1)

    def run(self, work: Callable[[], Any]) -> Iterator[float]:
        """Yields how much is done where that takes long. Raises what the work raises."""

        def body() -> None:
            try:
                self.result = work()
            except BaseException as error:  # who waits is told
                self.error = error

        thread = threading.Thread(target=body, name=self.name, daemon=True)
        thread.start()
        thread.join(2 * _LOOK_S)
        while thread.is_alive():
            yield self.share
            thread.join(_LOOK_S)
        if self.error is not None:
            raise self.error
