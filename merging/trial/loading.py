"""Loads a model folder with its tokenizer; what cannot be loaded is said in one line."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from merging.checkpoints import Checkpoint, open_checkpoint
from merging.errors import BadCheckpoint, BadFile, NotEnoughSpace
from merging.system.documents import read_object
from merging.system.locks import held
from merging.trial.confined import ConfinedTokenizer
from merging.trial.description import compare_counts, described
from merging.trial.model import Model, plain_generation
from merging.trial.placement import (
    Memory,
    at_most,
    check_largest,
    main_device,
    placement_of,
    usable_memory,
    weight_bytes,
)
from merging.trial.reason import reason

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.*", "spiece.model", "*.tiktoken")
_BUILDING = threading.Lock()  # building a model changes torch's defaults: one at a time
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Prepared:
    """A model folder that was looked at, and whose tensors can be read."""

    checkpoint: Checkpoint
    language: ConfinedTokenizer

    def load(
        self,
        dtype: torch.dtype | str = "auto",
        device: str = "cpu",
        *,
        memory: Memory | None = None,
        most_bytes: int | None = None,
        make_room: Callable[[str], object] | None = None,
        stop: threading.Event | None = None,
    ) -> Model:
        """Reads the tensors: the model, ready to answer. Raises as `load`.

        Args:
            most_bytes: of memory that it may take, all devices together; the rest lies on disk.
            make_room: lets go of what else lies in a device's memory; called where a GPU's is
                short.
        """
        checkpoint, main = self.checkpoint, main_device(device)
        with held(_BUILDING, stop):
            config, outline = described(checkpoint, stop)
            memory = memory or _room(outline, main, make_room)
            memory = memory if most_bytes is None else at_most(memory, most_bytes)
            check_largest(checkpoint.name, outline, memory)
            try:
                network, info = _read(checkpoint.folder, config, dtype, main, memory)
            except torch.OutOfMemoryError:
                raise NotEnoughSpace(
                    f"{checkpoint.name} does not fit the memory of {main}; choose --device cpu"
                ) from None
            except Exception as error:  # what it raises for a folder it cannot read has no base
                raise BadCheckpoint(
                    f"{checkpoint.name}: cannot be loaded: {reason(error)}"
                ) from None
        _check_loaded(checkpoint, info)
        placement = placement_of(network, main)
        model = Model(network.eval(), self.language, checkpoint.name, placement)
        network.generation_config = plain_generation(model)
        return model


def _room(
    outline: PreTrainedModel, main: torch.device, make_room: Callable[[str], object] | None
) -> Memory:
    """What a model may take; a family that is kept on the device for merging makes room for it."""
    memory = usable_memory(main)
    is_short = main.type == "cuda" and weight_bytes(outline) > memory[main.index or 0]
    if make_room is not None and is_short:
        make_room(str(main))
        memory = usable_memory(main)
    return memory


def _read(
    folder: Path, config: Any, dtype: torch.dtype | str, main: torch.device, memory: Memory
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model as transformers and accelerate load it, and the report of what was loaded."""
    loader: Any = AutoModelForCausalLM  # its types know no report of what was loaded
    place: Any = {"": str(main)} if main.type == "mps" else "sequential"
    return loader.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        device_map=place,
        max_memory=dict(memory),
    )


def prepare(
    folder: Path, *, name: str | None = None, stop: threading.Event | None = None
) -> Prepared:
    """Looks at a model folder, and opens its tokenizer in a process of its own.

    Args:
        name: what messages call it; the folder's own name if None.
        stop: ends it at once.

    Raises:
        As `load`.
    """
    checkpoint = open_checkpoint(Path(folder), name)
    _check_files(checkpoint)
    compare_counts(checkpoint)
    return Prepared(checkpoint, ConfinedTokenizer(checkpoint.folder, checkpoint.name, stop))


def load(
    folder: Path,
    dtype: torch.dtype | str = "auto",
    device: str = "cpu",
    *,
    name: str | None = None,
    memory: Memory | None = None,
    stop: threading.Event | None = None,
) -> Model:
    """Returns the model, ready to answer, with its tokenizer.

    Nothing is downloaded, and no code of the folder is run. Its config is held against its tensors
    before anything is allocated, and its tokenizer runs in a process of its own.

    Args:
        dtype: type of the parameters; "auto" for the stored one.
        device: "auto" (CUDA where present), "cpu", "cuda" or "mps". What does not fit there lies
            on other GPUs, in memory and on disk: see `Model.placement`.
        name: what messages call it; the folder's own name if None.
        memory: bytes that it may take of each device; most of what is free if None.
        stop: ends the loading where it can be ended: everywhere but while tensors are read.

    Raises:
        BadCheckpoint, UnsafeFile, ModelNotFound: as `open_checkpoint`; or transformers does not
            know the model, its config and its tensors do not belong together, or a file is missing.
        DeviceUnavailable: the device is not there.
        NotEnoughSpace: not even a part of it fits.
        Cancelled: `stop` was set.
    """
    return prepare(folder, name=name, stop=stop).load(dtype, device, memory=memory, stop=stop)


def _check_files(checkpoint: Checkpoint) -> None:
    """Raises BadCheckpoint where the tokenizer is missing, or a file beside it is damaged."""
    folder, name = checkpoint.folder, checkpoint.name
    generation = folder / "generation_config.json"
    try:
        if os.path.lexists(generation):
            read_object(generation)
    except BadFile as error:
        raise BadCheckpoint(f"{name}: {error}; copy it again, or delete it") from None
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZERS):
        raise BadCheckpoint(
            f"{name}: no tokenizer in its folder; copy tokenizer.json and "
            "tokenizer_config.json there from the model it was made from"
        )


def _check_loaded(checkpoint: Checkpoint, info: dict[str, Any]) -> None:
    """Raises BadCheckpoint where tensors were missing, and so hold chance, or layers left out."""
    missing = sorted(map(str, info.get("missing_keys", ())))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadCheckpoint(
            f"{checkpoint.name}: tensor {missing[0]}{more} of the model that config.json describes "
            "is in no file; copy the missing tensors, or the config.json that belongs to these"
        )
    unused = [_LAYER.search(str(key)) for key in info.get("unexpected_keys", ())]
    layers = sorted({int(match[1]) for match in unused if match})
    stated = checkpoint.config.get("num_hidden_layers")
    if layers and isinstance(stated, int) and layers[0] >= stated:
        raise BadCheckpoint(
            f"{checkpoint.name}: config.json says num_hidden_layers {stated}, the tensors have "
            f"{layers[-1] + 1} layers; copy the config.json that belongs to them"
        )
