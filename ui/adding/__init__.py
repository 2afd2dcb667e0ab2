"""Add a model, where the server's owner allows it: looked at before anything of it is loaded, then
on offer like any other.

`layout` builds the part of Explore's model card, `AddingTab` answers, `wire` attaches it.
"""

from ui.adding.layout import AddingRefs, layout
from ui.adding.tab import AddingTab
from ui.adding.wiring import wire

__all__ = ["AddingRefs", "AddingTab", "layout", "wire"]
