"""A base and its experts, matched tensor by tensor, and the account of every tensor.

Nothing is dropped in silence: each tensor of the base and of every expert has one line that says
whether it is merged, copied from the base or left out, and why.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from merging.checkpoints.aliases import input_embedding, is_head, named_as, without_wrapper
from merging.checkpoints.checkpoint import MERGEABLE, Checkpoint, TensorInfo, open_checkpoint
from merging.checkpoints.layout import (
    Place,
    is_beside_text,
    is_buffer,
    is_vocabulary,
    place,
    places,
)
from merging.checkpoints.names import called
from merging.errors import FamilyMismatch

_BUFFER = "a buffer that the model computes itself, not a parameter"
_MISSING = "missing in "
AS_BASE = "kept as the base has it, as keep_base asks"
Status = Literal["merged", "copied", "left_out"]


@dataclass(frozen=True)
class Entry:
    """One line of the account.

    Attributes:
        name: the tensor's name.
        status: merged; copied from the base; or left out of the result.
        reason: empty for an ordinary merged tensor.
        shape: the base's shape (the expert's where the base lacks the tensor).
        rows: for a vocabulary tensor whose row counts differ, the rows that all models share
            and that are merged; None otherwise. Further rows of the base are kept as they are.
    """

    name: str
    status: Status
    reason: str
    shape: tuple[int, ...]
    dtype: str
    place: Place
    rows: int | None = None

    @property
    def is_parameter(self) -> bool:
        """True for what a merge is expected to merge: floating-point, and no buffer."""
        return self.dtype in MERGEABLE and not is_buffer(self.name, self.shape)

    @functools.cached_property
    def numel(self) -> int:
        """Elements that are merged: all of them, or those of the shared rows."""
        count = 1
        for side in self.shape:
            count *= side
        if self.rows is not None and self.shape[0]:
            count = count // self.shape[0] * self.rows
        return count


@dataclass(frozen=True)
class Family:
    """A base and its experts.

    Attributes:
        experts: in the order given, by the name the user wrote.
        account: one Entry per tensor name, sorted by name.
    """

    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    account: tuple[Entry, ...] = field(repr=False)

    @property
    def merged(self) -> tuple[Entry, ...]:
        """The entries that take part in the merge, sorted by name."""
        return tuple(entry for entry in self.account if entry.status == "merged")

    @property
    def models(self) -> tuple[Checkpoint, ...]:
        """Base first, then the experts."""
        return (self.base, *self.experts)


def open_family(
    base: Path | Checkpoint,
    experts: Mapping[str, Path] | list[Checkpoint],
    keep: Sequence[str] = (),
) -> Family:
    """Matches a base and its experts by tensor name.

    Args:
        base: the base's folder, or the base already opened.
        experts: folders by name, or checkpoints already opened.
        keep: parts of names; tensors that have one stay as the base has them.

    Raises:
        FamilyMismatch: less than half of the base's parameters can be merged, or no expert given.
        BadCheckpoint, UnsafeFile, ModelNotFound: see `open_checkpoint`.
    """
    root = base if isinstance(base, Checkpoint) else open_checkpoint(base)
    if isinstance(experts, Mapping):
        opened = tuple(open_checkpoint(folder, name) for name, folder in experts.items())
    else:
        opened = tuple(experts)
    if not opened:
        raise FamilyMismatch(f"{root.name}: no expert given; name at least one model to merge")
    root = without_wrapper(root)
    opened = tuple(named_as(root, expert) for expert in opened)
    account = _account(root, opened, keep)
    _check_related(root, opened, account)
    return Family(root, opened, account)


def _account(
    base: Checkpoint, experts: tuple[Checkpoint, ...], keep: Sequence[str] = ()
) -> tuple[Entry, ...]:
    heads = _tied_heads(base)
    where = places({name: info.shape for name, info in base.tensors.items()})
    entries = []
    for name, info in base.tensors.items():
        others = [
            (
                expert.origin(name)[0] if name in expert.tensors else expert.name,
                expert.tensors.get(name),
            )
            for expert in experts
        ]
        entry = _entry(info, others)
        if name in heads:
            entry = _line(info, "left_out", f"tied to {heads[name]}, which is merged once")
        elif any(part in name for part in keep):
            entry = _line(info, "copied", AS_BASE)
        entries.append(replace(entry, name=name, place=where[name]))
    names = set(base.tensors)
    for expert in experts:
        for name, info in expert.tensors.items():
            if name in names:
                continue
            names.add(name)
            reason = f"only in {expert.name}, not in {called(base.name)}"
            if is_buffer(name, info.shape):
                reason = _BUFFER
            if base.ties_embeddings and is_vocabulary(name):
                reason = f"in {expert.name}; the base ties it to its token embedding"
            alias = replace(info, name=name) if expert.parts else info
            entries.append(_line(alias, "left_out", reason))
    return tuple(sorted(entries, key=lambda entry: entry.name))


def _tied_heads(base: Checkpoint) -> dict[str, str]:
    """Output heads, and an encoder's and a decoder's embeddings, stored beside the one embedding
    that the config ties them to."""
    embedding = input_embedding(base)
    if not base.ties_embeddings or embedding is None:
        return {}
    names = (name for name in base.tensors if is_vocabulary(name) and name != embedding)
    shares = embedding.endswith("shared.weight")
    return {
        name: embedding
        for name in names
        if is_head(name) or (shares and name.endswith("embed_tokens.weight"))
    }


def _entry(info: TensorInfo, others: list[tuple[str, TensorInfo | None]]) -> Entry:
    if is_buffer(info.name, info.shape):
        return _line(info, "copied", _BUFFER)
    if info.dtype not in MERGEABLE:
        return _line(info, "copied", _unmergeable(info.dtype, "the base"))
    missing = [name for name, other in others if other is None]
    if missing:
        return _line(info, "copied", f"{_MISSING}{', '.join(missing)}")
    present = [(name, other) for name, other in others if other is not None]
    for name, other in present:
        if other.dtype not in MERGEABLE:
            return _line(info, "copied", _unmergeable(other.dtype, name))
    different = [(name, other) for name, other in present if other.shape != info.shape]
    if not different:
        return _line(info, "merged", "")
    rows = [other.shape[0] if other.shape else 0 for _, other in different]
    same_width = all(other.shape[1:] == info.shape[1:] for _, other in different)
    listed = ", ".join(f"{list(other.shape)} in {name}" for name, other in different)
    shapes = f"shape {listed}, {list(info.shape)} in the base"
    if is_vocabulary(info.name) and same_width and len(info.shape) == 2:
        shared = min(*rows, info.shape[0])
        longer = [name for name, other in different if other.shape[0] > info.shape[0]]
        more = f"; further rows of {', '.join(longer)} are left out" if longer else ""
        return _line(info, "merged", f"{shapes}: the first {shared} rows are merged{more}", shared)
    return _line(info, "copied", shapes)


def _unmergeable(dtype: str, model: str) -> str:
    if dtype.startswith("F8"):
        return f"8-bit floats ({dtype}) in {model} are not merged; use its bfloat16 weights"
    return f"type {dtype} in {model} is not a floating-point type"


def _line(info: TensorInfo, status: Status, reason: str, rows: int | None = None) -> Entry:
    where = place(info.name, info.shape)
    return Entry(info.name, status, reason, info.shape, info.dtype, where, rows)


def _check_related(base: Checkpoint, experts: tuple[Checkpoint, ...], account: tuple) -> None:
    total = sum(base.tensors[entry.name].numel for entry in account if _counts(entry, base))
    if not base.parameters:
        raise FamilyMismatch(
            f"{base.name}: holds no parameters that can be merged (float32, bfloat16, float16); "
            "use the weights before quantization"
        )
    merged = _merged(account)
    if 2 * merged >= total and (merged or not total):
        return
    alone = [(expert, _account(base, (expert,))) for expert in experts]
    worst, family = min(alone, key=lambda pair: _merged(pair[1]))
    remark = next((e for e in family if e.status == "copied" and e.reason), None)
    example = f"; for example {remark.name}: {remark.reason}" if remark else ""
    kinds = [f"{m.name} {m.config.get('model_type', '?')}" for m in (base, worst)]
    raise FamilyMismatch(
        f"{worst.name} does not fit {called(base.name)}: {_merged(family)} of {total} "
        f"parameters can be merged{example}. Architectures: {', '.join(kinds)}. "
        "Choose experts fine-tuned from this base"
    )


def _counts(entry: Entry, base: Checkpoint) -> bool:
    """True for a parameter of the base that an expert of it would have: neither one stored twice,
    nor one that is to stay, nor part of a tower that an expert of text comes without."""
    if entry.name not in base.tensors or entry.status == "left_out" or not entry.is_parameter:
        return False
    absent = entry.status == "copied" and entry.reason.startswith(_MISSING)
    return entry.reason != AS_BASE and not (absent and is_beside_text(entry.name))


def _merged(account: tuple[Entry, ...]) -> int:
    """Parameters that take part."""
    return sum(entry.numel for entry in account if entry.status == "merged")
