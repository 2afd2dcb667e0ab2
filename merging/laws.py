"""What each way to prune does to magnitudes, as data: the plan here and the one in the browser
execute the same laws, and neither names a method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Order = Literal["all", "random", "largest"]


@dataclass(frozen=True)
class Law:
    """Which changes a pruner keeps.

    Attributes:
        order: all of them, as many as asked for at random, or the largest.
        linears: True where only linears are pruned; `scale_dense` scales the change of the others.

    The knobs that a pruner declares say the rest: `density`, `scope`, `density_shift`, `tie_rule`,
    `amplification` with its `partition_mode`.
    """

    order: Order
    linears: bool = False


LAWS = {
    "none": Law("all"),
    "random": Law("random"),
    "magnitude": Law("largest"),
    "dynamic": Law("largest", linears=True),
}
