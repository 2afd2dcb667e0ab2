"""The tensors of a result: their types and shapes, and those that are copied."""

from __future__ import annotations

from merging.checkpoints import Family, ModelWriter, TensorSpec
from merging.checkpoints.checkpoint import MERGEABLE, WIDTHS, torch_dtype
from merging.checkpoints.checksum import checksum
from merging.engines.eager import CHUNK
from merging.errors import NonFinite
from merging.later import torch
from merging.recipe import Recipe

STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""safetensors' names of the recipes' types."""


def specs_of(family: Family, recipe: Recipe) -> list[TensorSpec]:
    """The tensors of the result; the widest types first, so that all are aligned in the file."""
    specs = [
        TensorSpec(entry.name, _stored_type(recipe, family, entry.name), entry.shape)
        for entry in family.account
        if entry.status != "left_out"
    ]
    return sorted(specs, key=lambda spec: -WIDTHS[spec.dtype])


def _stored_type(recipe: Recipe, family: Family, name: str) -> str:
    stored = family.base.tensors[name].dtype
    if recipe.dtype is None or stored not in MERGEABLE:
        return stored
    return STORED[recipe.dtype]


def copy_rest(
    family: Family, dtypes: dict[str, str], writer: ModelWriter
) -> tuple[dict[str, int], list[str]]:
    """Copies what is not merged: whole tensors, and the base's rows beyond the shared ones.

    Args:
        dtypes: of the result's tensors, by name (safetensors' names).

    Returns:
        The checksums of what was copied, by tensor, and notes on values that are NaN.

    Raises:
        NonFinite: a value does not fit the output type.
    """
    sums: dict[str, int] = {}
    notes: list[str] = []
    for entry in family.account:
        if entry.status == "left_out":
            continue
        stored = family.base.tensors[entry.name]
        if stored.dtype not in MERGEABLE:
            for start, block in family.base.blocks(stored):
                sums[entry.name] = sums.get(entry.name, 0) + checksum(block, start)
                writer.write(entry.name, start // stored.width, block)
            continue
        first = entry.numel if entry.status == "merged" else 0
        for start in range(first, stored.numel, CHUNK):
            span = start, min(start + CHUNK, stored.numel)
            copied, has_nan = _copy_values(family, entry.name, span, dtypes[entry.name], writer)
            sums[entry.name] = sums.get(entry.name, 0) + copied
            if has_nan:
                owner, tensor = family.base.origin(entry.name)
                notes.append(f"{owner}: tensor {tensor}, which is copied, holds NaN")
    return sums, notes


def _copy_values(
    family: Family, name: str, span: tuple[int, int], dtype: str, writer: ModelWriter
) -> tuple[int, bool]:
    """Copies elements [start, stop) of the base's tensor in the type of the result.

    Returns:
        Their checksum, and whether one of them is NaN.
    """
    start, stop = span
    values = family.base.read_flat(name, start, stop)
    rounded = values.to(torch_dtype(dtype))
    if rounded.dtype != values.dtype and (rounded.isinf() & ~values.isinf()).any():
        raise overflow(name)
    data = rounded.view(torch.uint8).numpy().data
    writer.write(name, start, data)
    return checksum(data, start * WIDTHS[dtype]), bool(values.isnan().any())


def overflow(tensor: str) -> NonFinite:
    """The error for a result that is too large for the type it is written in."""
    return NonFinite(
        f"tensor {tensor}: the result does not fit the output type; use a smaller strength or "
        "amplification, or dtype: float32"
    )
