"""Explore's live model: what the merge answers, and how good it is, while sliders move."""

from ui.live.layout import LiveRefs, beside, build, memory
from ui.live.pages import LivePages
from ui.live.tab import LiveTab

__all__ = ["LivePages", "LiveRefs", "LiveTab", "beside", "build", "memory"]
