"""The stacks and layers of a family in order, and how far a merge moved each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from merging.checkpoints import Entry, Family
from merging.run.journal import Written


def layers_of(account: Sequence[Entry]) -> tuple[int | str, ...]:
    """What the layers of a family are called, stacks and layers in order."""
    titles = (entry.place.title for entry in sorted(account, key=_in_the_stack))
    return tuple(dict.fromkeys(title for title in titles if title is not None))


def drift(family: Family, written: Mapping[str, Written]) -> dict[int | str | None, float]:
    """Layer -> ||merged - base|| / ||base||, stacks and layers in order, the rest last.

    Args:
        written: of every merged tensor.
    """
    sums: dict[int | str | None, list[float]] = {}
    for entry in sorted(family.merged, key=_in_the_stack):
        layer = sums.setdefault(entry.place.title, [0.0, 0.0])
        layer[0] += written[entry.name].changed
        layer[1] += written[entry.name].squared
    return {
        title: (changed / squared) ** 0.5 if squared else 0.0
        for title, (changed, squared) in sums.items()
    }


def _in_the_stack(entry: Entry) -> tuple[bool, str, int]:
    """What puts tensors in the order of their stacks and layers, the rest last."""
    where = entry.place
    return where.layer is None, where.stack, where.layer or 0
