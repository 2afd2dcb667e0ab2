"""The History tab: every merge that was kept and every setting that was bookmarked.

All of it lies on the disk, beside the models: it survives a restart, every visitor sees the same,
and what the command line made is there, too.
"""

from ui.history.layout import HistoryRefs, layout
from ui.history.shelf import Shelf
from ui.history.tab import HistoryTab
from ui.history.trash import empty_trash
from ui.history.usage import Usage
from ui.history.wiring import bring, wire

__all__ = [
    "HistoryRefs",
    "HistoryTab",
    "Shelf",
    "Usage",
    "bring",
    "empty_trash",
    "layout",
    "wire",
]
