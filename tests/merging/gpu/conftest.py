"""Interpreted kernels are slow per program, not per element: few programs of many elements."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def few_programs(monkeypatch) -> None:
    from merging.gpu import kernels, order

    monkeypatch.setattr(kernels, "BLOCK", 1 << 13)
    monkeypatch.setattr(kernels, "SETTLED", order.NEAR)
    monkeypatch.setattr(kernels, "MENDED", order.NEAR)
