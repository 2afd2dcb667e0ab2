"""Several tasks in one folder: a change that all share, and of every task a bit mask and a number.

    task t = base + factor_t * M_t * change

The folder holds

    container.json        version, method, the recipe's base and the fingerprints of all models,
                          every file's fingerprint, every task with its file and factor, and the
                          tensors that are copied from the base, or left out, with reasons
    change.safetensors    the change, float32, by the base's names; of a vocabulary the shared rows
    masks_TASK.safetensors  uint8, by the same names: entry i, row by row, is bit i % 8 (lowest
                          first) of byte i // 8
    amalgam.yaml, config.json, tokenizer files...  as a task's own model will have them

What is not in change.safetensors a task has from the base.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from merging.checkpoints.checkpoint import Checkpoint
from merging.checkpoints.fingerprint import combined, tensor_digest
from merging.checkpoints.folders import CONTAINER
from merging.checkpoints.header import read_header
from merging.checkpoints.stamp import stamp
from merging.errors import BadCheckpoint, BadFile, ModelNotFound, RecipeError
from merging.later import torch
from merging.system.documents import read_object

VERSION = 1
CHANGE = "change.safetensors"
_LONGEST = 80  # characters of a task in a file's name


@dataclass(frozen=True)
class Task:
    """One task: what it is called, the file of its mask, its factor."""

    name: str
    file: str
    factor: float


@dataclass(frozen=True)
class Container:
    """What container.json says.

    Attributes:
        base, base_fingerprint: the recipe's base, a folder, Hub id or demo:NAME.
        inputs: fingerprints of all models by name.
        files: fingerprints of the files.
        copied, left_out: tensors that a result has from the base, and that none has, by reason.
    """

    folder: Path
    base: str
    base_fingerprint: str
    inputs: dict[str, str]
    files: dict[str, str]
    tasks: tuple[Task, ...]
    copied: dict[str, str]
    left_out: dict[str, str]

    def task(self, asked: str) -> tuple[int, Task]:
        """A task by its name, or its number from 1; the number and the task.

        Raises:
            RecipeError: there is none.
        """
        for number, task in enumerate(self.tasks, 1):
            if asked in (task.name, str(number)):
                return number, task
        named = ", ".join(task.name for task in self.tasks)
        raise RecipeError(f"{self.folder}: there is no task {asked}; it holds {named}")


def tasks_of(names: Sequence[str], factors: Sequence[float]) -> list[Task]:
    """The tasks of some experts, each with a file of its own."""
    plain = [re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)[:_LONGEST] for name in names]
    distinct = len({one.lower() for one in plain}) == len(plain)
    return [
        Task(name, f"masks_{word if distinct else f'{number}_{word}'}.safetensors", factor)
        for number, (name, word, factor) in enumerate(zip(names, plain, factors, strict=True), 1)
    ]


def document(container: Container, method: str) -> dict[str, Any]:
    """container.json as an object."""
    return {
        "version": VERSION,
        "method": method,
        "base": {"model": container.base, "fingerprint": container.base_fingerprint},
        "inputs": container.inputs,
        "files": container.files,
        "tasks": [vars(task) for task in container.tasks],
        "copied": container.copied,
        "left_out": container.left_out,
    }


def open_container(folder: Path) -> Container:
    """Reads container.json.

    Raises:
        ModelNotFound: there is no such folder, or it is none.
        BadCheckpoint: container.json cannot be read, or lacks something.
    """
    file = folder / CONTAINER
    if not file.is_file():
        raise ModelNotFound(
            f"{folder}: holds no {CONTAINER}; give a folder that a merge with container: true wrote"
        )
    try:
        content = read_object(file)
    except BadFile as error:
        raise BadCheckpoint(f"{error}; merge it again") from None
    if content.get("version") != VERSION:
        raise BadCheckpoint(
            f"{file}: version {content.get('version')!r} is not {VERSION}, which is read; use the "
            "version of Amalgam that wrote it"
        )
    try:
        tasks = tuple(map(_task, content["tasks"]))
        return Container(
            folder,
            str(content["base"]["model"]),
            str(content["base"]["fingerprint"]),
            _texts(content["inputs"]),
            _texts(content["files"]),
            tasks,
            _texts(content["copied"]),
            _texts(content["left_out"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"{file}: {error} is missing or wrong; merge it again") from None


def _task(entry: Mapping[str, Any]) -> Task:
    name, file, factor = str(entry["name"]), entry["file"], float(entry["factor"])
    if not isinstance(file, str) or Path(file).name != file or not math.isfinite(factor):
        raise ValueError(f"the file or factor of task {name}")  # the file is one of the folder
    return Task(name, file, factor)


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in dict(value).items()}


def open_file(folder: Path, file: str) -> Checkpoint:
    """The tensors of one file. Raises BadCheckpoint where it is missing, truncated or no such."""
    path = folder / file
    if not path.is_file():
        raise BadCheckpoint(f"{path} is missing; copy the container again")
    tensors = {info.name: info for info in read_header(path)}
    return Checkpoint(file, folder, {}, dict(sorted(tensors.items())), {path: stamp(path)})


def digests(opened: Checkpoint, see: Callable[[str, memoryview, int], None]) -> list[bytes]:
    """The digest of every tensor of a file; `combined` makes them the file's fingerprint.

    Args:
        see: gets every block that is read: its tensor's name, its bytes, and where it begins.
    """
    return [
        tensor_digest(opened, info, see=partial(see, name)) for name, info in opened.tensors.items()
    ]


def packed(bits: torch.Tensor) -> torch.Tensor:
    """A mask as bytes: entry i is bit i % 8 of byte i // 8, lowest first, row by row.

    Args:
        bits: bool of any shape, n entries, on the CPU.

    Returns:
        (ceil(n / 8),) uint8; the bits after the last entry are 0.
    """
    return torch.from_numpy(np.packbits(bits.flatten().numpy(), bitorder="little"))


def unpacked(data: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` entries of a mask, (count,) bool, from its bytes, see `packed`."""
    whole = np.unpackbits(data.numpy(), count=count, bitorder="little")
    return torch.from_numpy(whole.view(np.bool_))


__all__ = [
    "CHANGE",
    "Container",
    "Task",
    "combined",
    "digests",
    "document",
    "open_container",
    "open_file",
    "packed",
    "tasks_of",
    "unpacked",
]
