"""Whether a model could be an expert of a base, from configs and headers alone, in a few words."""

from __future__ import annotations

from merging.checkpoints import Checkpoint, open_family
from merging.checkpoints.aliases import input_embedding, named_as, without_wrapper
from merging.errors import FamilyMismatch
from merging.kinship import configs, tensors


def misfit(base: Checkpoint, model: Checkpoint) -> str:
    """Why a model cannot be merged onto a base: "2 layers, the base 28"; "" where it can.

    Both values are told. What may only spoil a result (tokenizers, settings) is no misfit.
    """
    if difference := configs.other_size(base, model):
        return difference
    if tensors.adapters([model]):
        return "holds an adapter that was not merged into it"
    root = without_wrapper(base)
    named = named_as(root, model)
    if tensors.layers(root, [named]):
        return "its files hold another number of layers than the base"
    try:
        open_family(root, [named])
    except FamilyMismatch:
        return _shapes(root, named)
    return ""


def other_vocabulary(base: Checkpoint, model: Checkpoint) -> str:
    """How the vocabulary of a model that fits differs in length: "32,001 rows, the base 32,000";
    "" where it does not. Rows that both have are merged."""
    pair = []
    for one in (base, model):
        name = input_embedding(one)
        shape = one.tensors[name].shape if name else ()
        pair.append(shape[0] if shape else 0)
    ours, theirs = pair
    return f"{theirs:,} rows, the base {ours:,}" if ours and theirs and ours != theirs else ""


def _shapes(base: Checkpoint, model: Checkpoint) -> str:
    """What most of the tensors that cannot be merged have in common."""
    shared = [name for name in base.tensors if name in model.tensors]
    if not shared:
        return "none of its tensors has a name of the base's"
    for name in shared:
        ours, theirs = base.tensors[name].shape, model.tensors[name].shape
        if ours != theirs:
            return f"{name} is {_times(theirs)}, in the base {_times(ours)}"
    return f"shares only {len(shared)} of the base's {len(base.tensors)} tensors"


def _times(shape: tuple[int, ...]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(map(str, shape)) or "one number"
