"""Where a tensor sits in its model, read from its name and shape alone.

Works for any architecture whose blocks are numbered in the tensor name
(`model.layers.7.self_attn.q_proj.weight`, `transformer.h.0.mlp.c_fc.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.(.+)$")
_SHORT = re.compile(r"_proj$|_layernorm$|_norm$")
_BUFFERS = re.compile(r"(?:^|\.)(?:inv_freq|masked_bias|position_ids)$")
_MASK = re.compile(r"(?:^|\.)(?:attn|attention|self_attn|self_attention)\.bias$")
_EMBEDDINGS = re.compile(
    r"(?:^|\.)(?:embed_tokens|embed_in|embeddings|wte|tok_embeddings|word_embeddings|shared|lm_head|embed_out|"
    r"output_projection)\.weight$"
)


@dataclass(frozen=True)
class Place:
    """Where one tensor sits.

    Attributes:
        layer: index of the numbered block, None outside the blocks.
        module: short name inside the block ("q", "gate", "input_layernorm"), or the tensor's
            own name outside.
        is_linear: True for matrices inside a block: what dynamic pruning prunes.
    """

    layer: int | None
    module: str
    is_linear: bool


def place(name: str, shape: tuple[int, ...]) -> Place:
    """Returns the place of tensor `name` with `shape`. A block's matrix counts as a linear."""
    found = _BLOCK.search(name)
    if found is None:
        return Place(None, name.removeprefix("model.").removesuffix(".weight"), False)
    rest = found.group(2)
    inner = rest.removesuffix(".weight")
    is_linear = len(shape) >= 2 and not inner.endswith("bias")
    parts = inner.split(".")
    module = parts[-1] if len(parts) <= 2 else ".".join(parts[1:])
    return Place(int(found.group(1)), _SHORT.sub("", module) if is_linear else module, is_linear)


def blocks_of(names: Sequence[str]) -> np.ndarray:
    """(n,) int: which block of the model each tensor is in, from 0, equal for tensors of one block.

    Blocks of one number in different stacks (an encoder's and a decoder's) are different ones. All
    names must be inside blocks.
    """
    found = [_BLOCK.search(name) for name in names]
    keys = [(name[: m.start()], int(m.group(1))) for name, m in zip(names, found, strict=True) if m]
    order = {key: index for index, key in enumerate(sorted(set(keys)))}
    return np.array([order[key] for key in keys], dtype=np.int64)


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """True for what a model computes itself and old checkpoints store: rotary frequencies and
    causal masks. They are constants, not parameters."""
    return bool(_BUFFERS.search(name) or (_MASK.search(name) and len(shape) == 4))


def is_vocabulary(name: str) -> bool:
    """True for token embeddings and output heads, whose rows are tokens."""
    return _EMBEDDINGS.search(name) is not None
