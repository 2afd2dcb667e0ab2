"""Where a tensor sits in its model, read from its name and shape alone.

Works for any architecture whose blocks are numbered in the tensor name
(`model.layers.7.self_attn.q_proj.weight`, `transformer.h.0.mlp.c_fc.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

_BLOCK = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.(.+)$")
_TOWER = re.compile(
    r"(?:^|[._])(?:vision|visual|vit|image|audio|speech|video|siglip|clip|vpm|apm)(?=$|[._])"
)
_AFTER = re.compile(
    r"(?:^|\.)(?:norm|norm_f|ln_f|final_\w*norm|final_layernorm|layer_norm|lm_head|embed_out|score|classifier|"
    r"output_projection|project_out|final_logits_bias)\b[^.]*(?:\.[^.]+)?$"
)
WRAPPERS = frozenset(
    (
        "base_model",
        "model",
        "language_model",
        "text_model",
        "transformer",
        "llm",
        "thinker",
        "module",
        "_orig_mod",
    )
)
"""Parts of a name that say who holds a tensor, not what it is."""
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
        stack: what the stack of blocks that it is in is called ("decoder", "visual"), "" where
            the model has one stack. Only `places`, which sees all names, knows it and `depth`.
        depth: layers of that stack; outside the blocks, of the stack that a text runs through.
    """

    layer: int | None
    module: str
    is_linear: bool
    stack: str = ""
    depth: int = 0

    @property
    def title(self) -> int | str | None:
        """Its layer as people are told: 3, "decoder 3", None outside the blocks."""
        if self.layer is None or not self.stack:
            return self.layer
        return f"{self.stack} {self.layer}"


def place(name: str, shape: tuple[int, ...]) -> Place:
    """Returns the place of tensor `name` with `shape`. A block's matrix counts as a linear."""
    match = _BLOCK.search(name)
    if match is None:
        return Place(None, name.removeprefix("model.").removesuffix(".weight"), False)
    rest = match.group(2)
    inner = rest.removesuffix(".weight")
    is_linear = len(shape) >= 2 and not inner.endswith("bias")
    parts = inner.split(".")
    module = parts[-1] if len(parts) <= 2 else ".".join(parts[1:])
    return Place(int(match.group(1)), _SHORT.sub("", module) if is_linear else module, is_linear)


def places(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Place]:
    """The place of every tensor of one model, by name, its stack and that stack's depth known."""
    counts = depths(shapes)
    titles = _titles(list(counts))
    outside = main_depth(counts)
    placed = {}
    for name, shape in shapes.items():
        stack = stack_of(name)
        titled = ("", outside) if stack is None else (titles[stack], counts[stack])
        placed[name] = replace(place(name, shape), stack=titled[0], depth=titled[1])
    return placed


def stack_of(name: str) -> str | None:
    """The stack of blocks that a tensor is in, by what their names begin with
    ("model.layers"); None outside the blocks."""
    match = _BLOCK.search(name)
    return name[: match.start(1) - 1] if match else None


def renumbered(name: str, shift: int) -> str:
    """A tensor's name with `shift` added to the number of its block; as it is outside them."""
    match = _BLOCK.search(name)
    if match is None:
        return name
    return f"{name[: match.start(1)]}{int(match.group(1)) + shift}{name[match.end(1) :]}"


def depths(names: Iterable[str]) -> dict[str, int]:
    """The number of layers of every stack of a model, by `stack_of`."""
    counts: dict[str, int] = {}
    for name in names:
        if match := _BLOCK.search(name):
            stack = name[: match.start(1) - 1]
            counts[stack] = max(counts.get(stack, 0), 1 + int(match.group(1)))
    return counts


def main_depth(counts: Mapping[str, int]) -> int:
    """The number of layers that a text runs through: those of the deepest stack that is no tower
    for images or sound. 0 without blocks."""
    return max(text_depths(counts), default=0)


def text_depths(counts: Mapping[str, int]) -> list[int]:
    """The depths of the stacks of `depths` that are no towers; of all where all are."""
    texts = [count for stack, count in counts.items() if not is_tower(stack)]
    return texts or list(counts.values())


def is_tower(name: str) -> bool:
    """True for what reads images or sound for a model of text."""
    return _TOWER.search(name) is not None


def is_beside_text(name: str) -> bool:
    """True for a tensor of a tower, or of what joins it to the text's layers."""
    return is_tower(name) or "projector" in name or "connector" in name


def is_after_layers(name: str) -> bool:
    """True for a tensor outside the blocks that a text meets after them: final norm and head."""
    return not is_tower(name) and _AFTER.search(name) is not None


def _titles(stacks: Sequence[str]) -> dict[str, str]:
    """A short name for each of several stacks; "" for a lone one."""
    if len(stacks) < 2:
        return dict.fromkeys(stacks, "")
    titles = {}
    for stack in stacks:
        parts = [part for part in stack.split(".")[:-1] if part not in WRAPPERS]
        tower = next((part for part in parts if is_tower(part)), None)
        titles[stack] = tower or (parts[-1] if parts else "text")
    return titles if len(set(titles.values())) == len(titles) else {name: name for name in stacks}


def blocks_of(names: Sequence[str]) -> np.ndarray:
    """(n,) int: which block of the model each tensor is in, from 0, equal for tensors of one block.

    Blocks of one number in different stacks (an encoder's and a decoder's) are different ones. All
    names must be inside blocks.
    """
    matches = [_BLOCK.search(name) for name in names]
    keys = [
        (name[: m.start()], int(m.group(1))) for name, m in zip(names, matches, strict=True) if m
    ]
    order = {key: index for index, key in enumerate(sorted(set(keys)))}
    return np.array([order[key] for key in keys], dtype=np.int64)


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """True for what a model computes itself and old checkpoints store: rotary frequencies and
    causal masks. They are constants, not parameters."""
    return bool(_BUFFERS.search(name) or (_MASK.search(name) and len(shape) == 4))


def is_vocabulary(name: str) -> bool:
    """True for token embeddings and output heads, whose rows are tokens."""
    return _EMBEDDINGS.search(name) is not None
