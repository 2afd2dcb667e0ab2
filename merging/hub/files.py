"""Which files of a repository are the model's: safetensors, JSON, tokenizers and templates.

Never code, never pickle, and the weights once: neither other formats nor a second copy of them in
their makers' own layout (consolidated.safetensors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from merging.checkpoints.checkpoint import CONFIG, INDEX, SMALL_BYTES
from merging.checkpoints.folders import MORE_TEMPLATES
from merging.errors import BadCheckpoint, UnsafeFile

SINGLE = "model.safetensors"
_SMALL = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt")
_OTHER_INDEX = "*.index.json"  # of pickles, of other copies
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
MOST_SHARDS = 2_000


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository.

    Attributes:
        name: its path there, parted by "/".
        sha256: of its bytes, of large files; "" for small ones, which the Hub keeps in git.
    """

    name: str
    size_bytes: int
    sha256: str = ""


def check_whole(name: str, files: Mapping[str, RemoteFile]) -> None:
    """Refuses what is plainly no whole model in safetensors, by its files' names.

    Raises:
        BadCheckpoint: an adapter, another format, or no weights; the message begins with `name`.
        UnsafeFile: pickle alone.
    """
    at_root = [file for file in files if "/" not in file]
    weights = [file for file in at_root if file.endswith(".safetensors")]
    if "adapter_config.json" in files and not {SINGLE, INDEX} & set(files):
        raise BadCheckpoint(
            f"{name}: an adapter, not a whole model; merge it into its model first (peft: "
            "merge_and_unload), and give that folder"
        )
    if not weights:
        if pickle := _first(at_root, _PICKLES):
            raise UnsafeFile(
                f"{name}: holds only pickle weights ({pickle}), which can run code; choose a model "
                "or a revision with safetensors"
            )
        if other := _first(at_root, ("*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.nemo", "*.npz")):
            raise BadCheckpoint(
                f"{name}: has no safetensors ({other} is another format); choose the original model"
            )
        raise BadCheckpoint(f"{name}: has no safetensors; choose a model that has")
    if CONFIG not in files:
        raise BadCheckpoint(f"{name}: has no {CONFIG}; choose a model in transformers' layout")


def weights_of(
    name: str, files: Mapping[str, RemoteFile], weight_map: Mapping[str, object]
) -> list[RemoteFile]:
    """The safetensors files that the model is read from, as `open_checkpoint` would.

    Args:
        weight_map: tensor -> file of the index; empty where there is none.

    Raises:
        BadCheckpoint: they cannot be told, or some are not there.
    """
    if weight_map:
        shards = sorted({str(shard) for shard in weight_map.values()})
    elif SINGLE in files:
        shards = [SINGLE]
    else:
        shards = [f for f in files if f.endswith(".safetensors") and "/" not in f]
        shards = [f for f in shards if not f.startswith(("consolidated", "adapter_model"))]
        if len(shards) != 1:
            raise BadCheckpoint(
                f"{name}: {len(shards)} safetensors files and no {INDEX}; which ones are the model "
                "cannot be told"
            )
    missing = [s for s in shards if s not in files or "/" in s or not s.endswith(".safetensors")]
    if missing or len(shards) > MOST_SHARDS:
        raise BadCheckpoint(
            f"{name}: its index names {len(shards)} files, and {len(missing)} of them are not "
            "there; choose another revision"
        )
    return [files[shard] for shard in shards]


def small_of(name: str, files: Mapping[str, RemoteFile]) -> list[RemoteFile]:
    """Config, index, tokenizer and templates. Raises BadCheckpoint: one is far too large."""
    small = [file for file in files.values() if _is_small(file.name)]
    for file in small:
        if file.size_bytes > SMALL_BYTES:
            raise BadCheckpoint(
                f"{name}: {file.name} has {file.size_bytes / 1e6:.0f} MB, over "
                f"{SMALL_BYTES / 1e6:.0f} MB"
            )
    return small


def _is_small(name: str) -> bool:
    folder, _, base = name.rpartition("/")
    if folder:
        return folder == MORE_TEMPLATES and base.endswith(".jinja")
    if fnmatchcase(name, _OTHER_INDEX) and name != INDEX:
        return False
    return any(fnmatchcase(name, pattern) for pattern in _SMALL)


def _first(names: Sequence[str], patterns: Sequence[str]) -> str:
    return next((n for n in sorted(names) if any(fnmatchcase(n, p) for p in patterns)), "")
