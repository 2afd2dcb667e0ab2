"""No pruning: every change is kept."""

from merging.methods.registry import Axis

AXIS = Axis(
    id="none",
    kind="prune",
    title="Nothing",
    summary="Keep every change.",
    formula="delta",
    paper="",
    url="",
)
