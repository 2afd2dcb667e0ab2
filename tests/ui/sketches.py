"""Made-up sketches of any size, for the figures."""

from __future__ import annotations

import numpy as np

from merging.sketches.sketch import (
    N_BINS,
    N_FINE,
    FamilySketch,
    SketchedTensor,
    bin_edges,
    fine_edges,
)

MODULES = ("q", "k", "v", "o", "gate", "up", "down")


def sketch(
    experts: int = 4, layers: int = 4, modules: tuple[str, ...] = MODULES, entries: int = 4096
) -> FamilySketch:
    """Normal deltas, a little wider from layer to layer; embeddings and a norm outside."""
    tensors = [
        SketchedTensor(
            f"model.layers.{layer}.{module}.weight", layer, module, True, entries, "", layers
        )
        for layer in range(layers)
        for module in modules
    ]
    tensors.append(
        SketchedTensor("model.embed_tokens.weight", None, "embed_tokens", False, 2048, "", layers)
    )
    tensors.append(SketchedTensor("model.norm.weight", None, "norm", False, 64, "", layers))
    random = np.random.default_rng(0)
    shape = (experts, len(tensors))
    counts = np.zeros((*shape, N_BINS), dtype=np.int64)
    fine = np.zeros((*counts.shape, N_FINE), dtype=np.int32)
    l1, l2 = np.zeros(counts.shape), np.zeros(counts.shape)
    largest, outliers = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    edges = bin_edges()
    for expert in range(experts):
        for index, tensor in enumerate(tensors):
            width = 0.01 * (1 + 0.1 * (tensor.layer or 0) + 0.05 * expert)
            values = np.abs(random.standard_t(5, tensor.numel) * width)
            at = np.searchsorted(edges, values, side="right") - 1
            near = np.searchsorted(fine_edges(), values, side="right") - 1
            fine[expert, index] = np.bincount(near, minlength=N_BINS * N_FINE).reshape(-1, N_FINE)
            counts[expert, index] = np.bincount(at, minlength=N_BINS)
            l1[expert, index] = np.bincount(at, values, N_BINS)
            l2[expert, index] = np.bincount(at, values**2, N_BINS)
            largest[expert, index] = values.max()
            outliers[expert, index] = (values > 3 * values.mean()).sum() * tensor.is_linear
    energy = l2.sum(axis=2)
    dots = np.einsum("et,ef->eft", energy, np.eye(experts))
    return FamilySketch(
        "base",
        tuple(f"expert{i}" for i in range(experts)),
        tuple(tensors),
        counts,
        l1,
        l2,
        fine,
        np.zeros_like(fine),
        np.zeros(shape, dtype=np.int64),
        largest,
        outliers,
        outliers,
        3.0,
        5.0,
        dots,
        np.full(len(tensors), 10.0),
        random.normal(size=(experts, 256)).astype(np.float32) * 0.01,
        random.normal(size=256).astype(np.float32) * 0.1,
        np.arange(256) % len(tensors),
        True,
        0.1,
        "made-up",
    )
