"""What a config describes, held against the tensors beside it before anything is allocated.

A config is a program's input that came with the model: with a number too many, building the model
takes hours or all the memory there is. Layers are counted from the headers first; then the model is
built without memory for its tensors, and stopped where it grows beyond what the files can fill.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from merging.checkpoints import Checkpoint
from merging.errors import BadCheckpoint, Cancelled
from merging.trial.reason import reason

_NUMBER = re.compile(r"\.(\d+)(?=\.)")
_COUNTS = re.compile(r"(?<!max_window_)(?:^|_)(?:layers?|depth|blocks|experts)$")
_STACKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_NUMBERED = 10**6  # a number in a tensor's name beyond this counts nothing
_FUSED = 4  # parameters a model may have for each stored tensor: some are stored fused
_SPARE = 1000  # parameters
_BUFFER_BYTES = 1 << 30  # buffers that are computed, not stored
_BUILD_S = 60.0


def described(
    checkpoint: Checkpoint, stop: threading.Event | None = None
) -> tuple[PreTrainedConfig, PreTrainedModel]:
    """The config of a model folder and its model on the meta device: shapes without memory.

    Raises:
        BadCheckpoint: the config describes another model than the tensors, in one line with both
            values; or transformers does not know it.
        Cancelled: `stop` was set.
    """
    compare_counts(checkpoint)
    try:
        config = AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
        config._attn_implementation = None  # a name may be of kernels that would be downloaded
        with _bounded(checkpoint, stop), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (BadCheckpoint, Cancelled):
        raise
    except Exception as error:  # what transformers raises for a config has no common base
        raise BadCheckpoint(
            f"{checkpoint.name}: config.json describes no model that can be built "
            f"({reason(error)}); copy the config.json that belongs to the tensors"
        ) from None
    _compare_shapes(checkpoint, model)
    _compare_sizes(checkpoint, model)
    return config, model


def compare_counts(checkpoint: Checkpoint) -> None:
    """Raises BadCheckpoint where the config counts more layers or experts than are stored."""
    numbers = [int(n) for name in checkpoint.tensors for n in _NUMBER.findall(name)]
    layers = 1 + max((n for n in numbers if n < _NUMBERED), default=-1)
    widest = max((side for info in checkpoint.tensors.values() for side in info.shape), default=0)
    for path, key, value in _whole_numbers(checkpoint.config):
        if not _COUNTS.search(key):
            continue
        if not path and key in _STACKS and value > layers:
            counted = f"the tensors beside it have {layers} layers"
        elif value > max(layers, widest):
            counted = f"no tensor beside it counts beyond {max(layers, widest)}"
        else:
            continue
        raise BadCheckpoint(
            f"{checkpoint.name}: config.json says {path}{key} {value}, but {counted}; copy the "
            "config.json that belongs to them"
        )


def _whole_numbers(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str, int]]:
    """(path, key, value) of every whole number in a config, nested ones too."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _whole_numbers(value, f"{path}{key}.")
        elif is_number(value):
            yield path, key, int(value)


def is_number(value: Any) -> bool:
    """True for a finite number; JSON's true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


@contextmanager
def _bounded(checkpoint: Checkpoint, stop: threading.Event | None) -> Iterator[None]:
    """Ends the building of a model in this thread where it outgrows the checkpoint."""
    most = _FUSED * len(checkpoint.tensors) + _SPARE
    builder, latest, count = threading.get_ident(), time.monotonic() + _BUILD_S, 0

    def registered(*_: Any) -> None:
        nonlocal count
        if threading.get_ident() != builder:
            return
        count += 1
        if stop is not None and stop.is_set():
            raise Cancelled("stopped")
        if count > most or time.monotonic() > latest:
            raise BadCheckpoint(
                f"{checkpoint.name}: config.json describes more than {count - 1} tensors, the "
                f"files hold {len(checkpoint.tensors)}; copy the config.json that belongs to them"
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()


def _compare_shapes(checkpoint: Checkpoint, model: PreTrainedModel) -> None:
    """Raises BadCheckpoint for a tensor that has another shape than the config gives it."""
    prefix = f"{model.base_model_prefix}."
    for name, parameter in model.named_parameters():
        for stored in (name, name.removeprefix(prefix), prefix + name):
            info = checkpoint.tensors.get(stored)
            if info is None:
                continue
            if tuple(info.shape) != tuple(parameter.shape):
                shape = list(parameter.shape)
                raise BadCheckpoint(
                    f"{checkpoint.name}: tensor {stored} has shape {list(info.shape)}, "
                    f"config.json describes {shape}{_named(checkpoint, info.shape, shape)}; copy "
                    "the config.json that belongs to the tensors"
                )
            break


def _named(checkpoint: Checkpoint, stored: tuple[int, ...], shape: list[int]) -> str:
    """The config's key that gave a side of a shape, in brackets, where one is found."""
    sides = {side for side, own in zip(shape, stored, strict=False) if side != own}
    for path, key, value in _whole_numbers(checkpoint.config):
        if value in sides:
            return f" ({path}{key} {value})"
    return ""


def _compare_sizes(checkpoint: Checkpoint, model: PreTrainedModel) -> None:
    """Raises BadCheckpoint where the model has more entries than the files: whatever its names."""
    stored = sum(info.numel for info in checkpoint.tensors.values())
    size = sum(parameter.numel() for parameter in model.parameters())
    if size > stored:
        raise BadCheckpoint(
            f"{checkpoint.name}: config.json describes {size:,} parameters, the files hold "
            f"{stored:,}; copy the config.json that belongs to them, or the missing tensors"
        )
    computed = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    if computed > max(_BUFFER_BYTES, checkpoint.size_bytes):
        raise BadCheckpoint(
            f"{checkpoint.name}: config.json asks for {computed / 1e9:.1f} GB of tables beside "
            f"{checkpoint.size_bytes / 1e9:.1f} GB of tensors; correct its lengths "
            "(max_position_embeddings)"
        )
