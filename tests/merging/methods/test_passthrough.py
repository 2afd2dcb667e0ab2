"""Passthrough: one model, scaled."""

from __future__ import annotations

import pytest
import torch

from merging.methods.passthrough import scaled
from tests.shelf import Case, cases


@pytest.mark.parametrize("case", cases("passthrough"))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    (scale,) = case.parameters.get("scale", [None])
    assert case.close(scaled(case.points[0], scale))


def test_without_a_scale_bytes_stay() -> None:
    values = torch.tensor([float("nan"), -0.0, 1e-45])
    assert scaled(values, None) is values
