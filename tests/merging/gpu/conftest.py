"""Interpreted kernels are slow per program, not per element: few programs of many elements."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def few_programs(monkeypatch) -> None:
    from merging.gpu import order, triton_kernels

    monkeypatch.setattr(triton_kernels, "BLOCK", 1 << 13)
    monkeypatch.setattr(triton_kernels, "SETTLED", order.NEAR)
    monkeypatch.setattr(triton_kernels, "MENDED", order.NEAR)
