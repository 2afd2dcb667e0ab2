"""Loads a model folder with its tokenizer; what cannot be loaded is said in one line."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from merging.checkpoints import Checkpoint, open_checkpoint
from merging.errors import BadCheckpoint
from merging.trial.confined import ConfinedTokenizer, held
from merging.trial.description import compare_counts, described
from merging.trial.model import Model, plain_generation
from merging.trial.reason import reason

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.*", "spiece.model", "*.tiktoken")
_BUILDING = threading.Lock()  # building a model changes torch's defaults: one at a time
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Prepared:
    """A model folder that was looked at, and whose tensors can be read."""

    checkpoint: Checkpoint
    language: ConfinedTokenizer

    def load(self, dtype: torch.dtype | str = "auto", stop: threading.Event | None = None) -> Model:
        """Reads the tensors: the model, on the CPU and ready to answer. Raises as `load`."""
        checkpoint = self.checkpoint
        loader: Any = AutoModelForCausalLM  # its types know no report of what was loaded
        with held(_BUILDING, stop):
            config, _ = described(checkpoint, stop)
            try:
                network, info = loader.from_pretrained(
                    checkpoint.folder, config=config, dtype=dtype, use_safetensors=True,
                    local_files_only=True, trust_remote_code=False, output_loading_info=True,
                )  # fmt: skip
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # what it raises for a folder it cannot read has no base
                raise BadCheckpoint(
                    f"{checkpoint.name}: cannot be loaded: {reason(error)}"
                ) from None
        _check_loaded(checkpoint, info)
        model = Model(network.eval(), self.language, checkpoint.name)
        network.generation_config = plain_generation(model)
        return model


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
    _check_tokenizer(checkpoint)
    compare_counts(checkpoint)
    return Prepared(checkpoint, ConfinedTokenizer(checkpoint.folder, checkpoint.name, stop))


def load(
    folder: Path,
    dtype: torch.dtype | str = "auto",
    *,
    name: str | None = None,
    stop: threading.Event | None = None,
) -> Model:
    """Returns the model, on the CPU and ready to answer, with its tokenizer.

    Nothing is downloaded, and no code of the folder is run. Its config is held against its tensors
    before anything is allocated, and its tokenizer runs in a process of its own.

    Args:
        dtype: type of the parameters; "auto" for the stored one.
        name: what messages call it; the folder's own name if None.
        stop: ends the loading where it can be ended: everywhere but while tensors are read.

    Raises:
        BadCheckpoint, UnsafeFile, ModelNotFound: as `open_checkpoint`; or transformers does not
            know the model, its config and its tensors do not belong together, or a file is missing.
        Cancelled: `stop` was set.
    """
    return prepare(folder, name=name, stop=stop).load(dtype, stop)


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    """Raises BadCheckpoint where the tokenizer is missing."""
    folder, name = checkpoint.folder, checkpoint.name
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
    layers = sorted({int(found[1]) for found in unused if found})
    stated = checkpoint.config.get("num_hidden_layers")
    if layers and isinstance(stated, int) and layers[0] >= stated:
        raise BadCheckpoint(
            f"{checkpoint.name}: config.json says num_hidden_layers {stated}, the tensors have "
            f"{layers[-1] + 1} layers; copy the config.json that belongs to them"
        )
