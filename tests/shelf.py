"""Results of mergekit 0.1.5 on small tensors: `tests/data/mergekit_shelf.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

DATA = Path(__file__).parent / "data" / "mergekit_shelf.json"


class Case(NamedTuple):
    """One call of mergekit's merge_tensors.

    Attributes:
        models: the tensors but the base, float32.
        points: all of them, in the order in which mergekit got them.
        expected: what it returned, flat; None where it raised an error.
        more: what else was written down, of random methods.
    """

    inputs: str
    base: torch.Tensor | None
    models: list[torch.Tensor]
    points: list[torch.Tensor]
    parameters: dict[str, Any]
    expected: torch.Tensor | None
    more: dict[str, Any]

    @property
    def changes(self) -> list[torch.Tensor]:
        """The models' changes against the base; the models without one."""
        return self.models if self.base is None else [one - self.base for one in self.models]

    def close(self, merged: torch.Tensor) -> bool:
        """True where a result agrees with mergekit's."""
        assert self.expected is not None
        return (merged.flatten() - self.expected).abs().max().item() <= 2e-6

    def from_base(self, change: torch.Tensor) -> torch.Tensor:
        """base + change."""
        return change if self.base is None else self.base + change.view_as(self.base)


@cache
def _document() -> dict[str, Any]:
    return json.loads(DATA.read_text())


def cases(method: str, where: Callable[[Case], bool] = lambda case: True) -> list[Any]:
    """The cases of a method that fulfil a condition, as parameters of a test."""
    rows = []
    for row in _document()["cases"]:
        one = _case(row)
        if row["method"] == method and where(one):
            name = f"{row['inputs']}-{row['which']}-{row['base']}-{row['parameters']}"
            rows.append(pytest.param(one, id=name.replace(" ", "")))
    return rows


def case(method: str, inputs: str, which: Sequence[int], **parameters: Any) -> Case:
    """The one case with these inputs and parameters."""
    (row,) = [
        row
        for row in _document()["cases"]
        if (row["method"], row["inputs"], row["which"]) == (method, inputs, list(which))
        and row["parameters"] == parameters
    ]
    return _case(row)


def _case(row: dict[str, Any]) -> Case:
    held = _document()["inputs"][row["inputs"]]
    shape, tensors = held["shape"], held["tensors"]
    points = [torch.tensor(tensors[index]).view(shape) for index in row["which"]]
    base = row["base"]
    expected = torch.tensor(row["expected"]) if "expected" in row else None
    return Case(
        row["inputs"],
        None if base is None else points[base],
        [point for index, point in enumerate(points) if index != base],
        points,
        row["parameters"],
        expected,
        {name: row[name] for name in ("probabilities", "seed", "error") if name in row},
    )


def blend(points: Sequence[torch.Tensor], coefficients: Sequence[float]) -> torch.Tensor:
    """sum_i c_i x_i in float32."""
    return sum(c * x for c, x in zip(coefficients, points, strict=True))
