"""The Explore tab: what a recipe keeps of every expert, before anything is merged.

The histograms go to the browser once per family; from then on the plots follow the sliders there.
When the controls rest, the browser asks for the exact numbers of the plan.
"""

from ui.explore.answers import listed, spelled, unspelled
from ui.explore.beside import sides
from ui.explore.layout import ExploreRefs, build, memory
from ui.explore.wiring import wire

__all__ = ["ExploreRefs", "build", "listed", "memory", "sides", "spelled", "unspelled", "wire"]
