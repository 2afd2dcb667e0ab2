"""What was asked for and what is kept, and why the two differ.

The share asked for is the recipe's density over all entries that are pruned; the share kept counts
the changes that reach the merge: other than 0, and in a partition whose factor is not 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass

from merging.selection.tied import Cut

CAUSES = {
    "shift": "shifted densities end at 0 and at 1",
    "rounding": "a small tensor keeps whole entries, one at least",
    "ties": "equal changes at the cut are dropped",
    "unchanged": "the other entries equal the base",
    "amplification": "partitions with factor 0 are dropped",
}
"""Why another share is kept than was asked for, in the order in which they come."""

_LEAST, _RELATIVE = 5e-4, 0.02  # smaller differences, of the entries and of what was asked for,
# are those of small tensors that keep whole entries


@dataclass(frozen=True)
class Retention:
    """How many changes of some entries a pruner keeps. Sums over tensors are one, too.

    Attributes:
        entries: entries looked at.
        asked: entries asked for, by the recipe's density.
        dense: the same after densities were shifted and ended at 0 and 1.
        counted: whole entries looked for.
        inside: the same without ties that are dropped.
        changed: those of them that differ from the base.
        survivors: those of them whose factor is not 0.
    """

    entries: float
    asked: float
    dense: float
    counted: float
    inside: float
    changed: float
    survivors: float

    def __add__(self, other: Retention) -> Retention:
        return Retention(
            *(one + two for one, two in zip(astuple(self), astuple(other), strict=True))
        )

    @property
    def share(self) -> float:
        """The share of the entries that is kept, 0..1."""
        return self.survivors / self.entries if self.entries else 0.0

    @property
    def share_asked(self) -> float:
        """The share of the entries that was asked for, 0..1."""
        return self.asked / self.entries if self.entries else 0.0

    @property
    def causes(self) -> dict[str, float]:
        """What each of CAUSES adds, in shares of the entries; they sum up to the difference."""
        steps = (self.asked, self.dense, self.counted, self.inside, self.changed, self.survivors)
        of = max(self.entries, 1)
        parts = [(after - before) / of for before, after in itertools.pairwise(steps)]
        return dict(zip(CAUSES, parts, strict=True))


NOTHING = Retention(*[0.0] * 7)


def total(parts: Iterable[Sequence[Retention]]) -> list[Retention]:
    """Per expert, the sum over tensors of what each has of every expert. A tensor that is not
    pruned has none."""
    return [sum(column, NOTHING) for column in zip(*filter(None, parts), strict=True)]


def document(retention: Retention) -> dict[str, object]:
    """As JSON has it: shares of the entries."""
    return {
        "entries": int(retention.entries),
        "asked": retention.share_asked,
        "kept": retention.share,
        "causes": retention.causes,
    }


def difference(model: str, retention: Retention) -> str | None:
    """In one line, where another share of a model's entries is kept than was asked for."""
    least = max(_LEAST, _RELATIVE * retention.share_asked)
    if abs(retention.share - retention.share_asked) < least:
        return None
    reasons = sorted(
        ((part, CAUSES[cause]) for cause, part in retention.causes.items() if abs(part) >= _LEAST),
        key=lambda one: -abs(one[0]),
    )
    why = "; ".join(
        text if len(reasons) == 1 else f"{text} ({100 * part:+.1f} points)"
        for part, text in reasons
    )
    asked, share = f"{100 * retention.share_asked:.3g} %", f"{100 * retention.share:.3g} %"
    return f"{model}: asked for {asked} of its entries, kept {share}{f': {why}' if why else ''}"


def counts_of(cuts: Sequence[Cut], numel: int) -> list[int]:
    """How many entries other than 0 some cuts keep.

    Args:
        numel: entries of the scope; what a cut that keeps everything holds.
    """
    return [numel if cut.count is None else cut.count for cut in cuts]


def with_changes(numel: int, counts: Sequence[int], changed: int) -> list[int]:
    """As `counts_of`, of cuts that keep so many of the largest entries."""
    return [count if count == numel else min(count, changed) for count in counts]


def inside_rings(
    inside: int, nested: Sequence[int], factors: Sequence[float]
) -> tuple[int, int, int]:
    """The last three of `Retention`: entries inside the last of some nested cuts, those of them
    that differ from the base, and those whose factor is not 0.

    Args:
        inside: entries inside the last cut.
        nested: of every cut, see `counts_of`.
    """
    rings = [count - before for before, count in zip([0, *nested], nested, strict=False)]
    survivors = sum(count for count, factor in zip(rings, factors, strict=True) if factor)
    return inside, nested[-1], survivors
