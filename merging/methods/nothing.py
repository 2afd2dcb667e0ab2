"""No pruning: every change is kept."""

from merging.declarations.knobs import Axis, Law

AXIS = Axis(
    id="none",
    kind="prune",
    title="Nothing",
    summary="Keep every change.",
    formula="delta",
    paper="",
    url="",
    words="Keep every change.",
    law=Law("all"),
)
