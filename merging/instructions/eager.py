"""What has no fused form: a function that torch runs over chunks, whole rows or a whole tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Needs = Literal["chunk", "rows", "tensor"]
"""What a function must see at once: any run of elements, whole rows (a row is the last dimension),
or all of it."""


@dataclass(frozen=True)
class Eager:
    """A step that torch runs on any device. It says one of three things:

    - as a decision on one expert's change: function(delta, start) -> the pruned delta;
    - as a combination: function(deltas, start) -> the merged delta, deltas as a list;
    - as an Outcome's `blend`: function(base, models, start) -> the merged tensor.

    Attributes:
        function: its tensors are float32 of shape (n,) for chunks, (rows, columns) for rows, and
            the tensor's own shape otherwise; it changes none of them, and returns the same shape.
            `start` is the flat index of the first element.
        needs: what it must see at once.
    """

    function: Callable[..., Any]
    needs: Needs = "chunk"


def widest(needs: Sequence[Needs]) -> Needs:
    """What several functions together must see at once."""
    return max(needs, key=("chunk", "rows", "tensor").index, default="chunk")
