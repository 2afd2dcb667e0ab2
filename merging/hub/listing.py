"""What a model is, a folder's or a repository's of the Hub, before anything of it is loaded.

Read are its config, its card and the headers of its safetensors files; of a repository a few small
files go into the Hub's cache for that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import SafetensorsFileMetadata

from merging.checkpoints import Checkpoint, TensorInfo, open_checkpoint
from merging.checkpoints.checkpoint import CONFIG, INDEX, MERGEABLE, check_config
from merging.checkpoints.header import WIDTHS
from merging.errors import BadCheckpoint, BadFile, ModelNotFound, shown
from merging.hub.cache import Hub, Snapshot
from merging.hub.card import Card, card_of, from_metadata
from merging.hub.files import RemoteFile, check_whole, small_of, weights_of
from merging.hub.references import Reference
from merging.hub.refusals import told_of
from merging.kinship.chat import templates
from merging.system.documents import OBJECT_BYTES, read_object

_SETTINGS = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
_TEXT = ("text_config", "llm_config", "language_config")
_SILENCE_S = 10.0  # until a Hub that does not answer is given up
_AT_ONCE = 8  # headers that are asked for at a time
_MOST_TENSORS = 300_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A repository of the Hub at one commit.

    Attributes:
        asked: as it was written.
        files: what is fetched of it, the config last.
    """

    asked: Reference
    snapshot: Snapshot
    files: tuple[RemoteFile, ...]

    @property
    def pinned(self) -> Reference:
        """The reference that means the same model for ever."""
        return Reference(self.snapshot.repo, self.snapshot.commit)

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to be fetched."""
        return sum(file.size_bytes - self.snapshot.bytes_here(file) for file in self.files)


@dataclass(frozen=True)
class Listing:
    """What is known of a model before it is loaded.

    Attributes:
        name: the folder's, or the repository's.
        outline: its config and its tensors' names, types and shapes. Of a repository the files need
            not be here: nothing can be read of it.
        size_bytes: of the files that belong to it.
        repository: where it is fetched from; None for a folder.
    """

    name: str
    outline: Checkpoint
    card: Card
    has_template: bool
    size_bytes: int
    repository: Repository | None = None

    @property
    def architecture(self) -> str:
        """As its config names it: "LlamaForCausalLM (llama)"."""
        config = self.outline.config
        named = config.get("architectures")
        first = named[0] if isinstance(named, list) and named else ""
        kind = config.get("model_type")
        parts = [str(part) for part in (first, f"({kind})" if first and kind else kind) if part]
        return " ".join(parts) or "not stated"

    @property
    def dtype(self) -> str:
        """The type of most parameters by safetensors' name, and "mixed" where there are others."""
        counts: Counter[str] = Counter()
        for info in self.outline.tensors.values():
            if info.dtype in MERGEABLE:
                counts[info.dtype] += info.numel
        most = [dtype for dtype, _ in counts.most_common()]
        return "none" if not most else most[0] + (", mixed" if len(most) > 1 else "")

    @property
    def context(self) -> int | None:
        """The longest text in tokens by its config; None where that does not say."""
        config = self.outline.config
        parts = [config, *(config.get(key) for key in _TEXT)]
        lengths = [p.get(key) for p in parts if isinstance(p, Mapping) for key in _CONTEXT]
        return next((n for n in lengths if isinstance(n, int) and n > 0), None)


def of_folder(folder: Path) -> Listing:
    """Lists a model's folder.

    Raises:
        ModelNotFound: there is no such folder.
        BadCheckpoint, UnsafeFile: as `open_checkpoint`.
    """
    outline = open_checkpoint(folder)
    files = [path for path in outline.stamps if path.suffix == ".safetensors"]
    size = sum(stamp.size_bytes for file in files if (stamp := outline.stamps[file]))
    return Listing(outline.name, outline, card_of(folder), bool(templates(folder)), size)


def of_repository(reference: Reference, hub: Hub) -> Listing:
    """Lists a model of the Hub.

    Raises:
        ModelNotFound: there is none of that name, it is not for us, or the Hub cannot be reached.
        BadCheckpoint, UnsafeFile: it is no whole model in safetensors.
    """
    name = reference.short
    with told_of(name):
        info = hub.api.model_info(
            reference.repo,
            revision=reference.revision or None,
            files_metadata=True,
            timeout=_SILENCE_S,
        )
        commit = info.sha or ""
        if not _COMMIT.fullmatch(commit):
            raise ModelNotFound(f"{name}: the Hub names no commit for it; try again")
        snapshot = Snapshot(hub, reference.repo, commit)
        files = {file.name: file for file in _files(info)}
        check_whole(name, files)
        config = _object(name, snapshot, files[CONFIG])
        check_config(config, name)
        index = _object(name, snapshot, files[INDEX]) if INDEX in files else {}
        weights = weights_of(name, files, _mapping(index.get("weight_map")))
        small = small_of(name, files)
        for setting in _SETTINGS:
            if setting in files and files[setting].size_bytes <= OBJECT_BYTES:
                snapshot.link(files[setting])
        tensors = _tensors(name, snapshot, weights)
    outline = Checkpoint(name, snapshot.folder, config, tensors)
    fetched = sorted([*small, *weights], key=lambda file: (file.name == CONFIG, file.size_bytes))
    return Listing(
        reference.repo,
        outline,
        from_metadata(info.card_data.to_dict() if info.card_data else None),
        bool(templates(snapshot.folder)),
        sum(file.size_bytes for file in fetched),
        Repository(reference, snapshot, tuple(fetched)),
    )


def _files(info: ModelInfo) -> Iterator[RemoteFile]:
    for sibling in info.siblings or ():
        size = sibling.lfs.size if sibling.lfs else sibling.size
        sha256 = sibling.lfs.sha256 if sibling.lfs else ""
        if not _SHA256.fullmatch(sha256):  # it becomes a file's name
            sha256 = ""
        yield RemoteFile(sibling.rfilename, size or 0, sha256)


def _object(name: str, snapshot: Snapshot, file: RemoteFile) -> dict[str, Any]:
    if file.size_bytes > OBJECT_BYTES:
        raise BadCheckpoint(f"{name}: {file.name} has {file.size_bytes / 1e6:.0f} MB, too much")
    try:
        return read_object(snapshot.link(file))
    except BadFile as error:
        reason = str(error).rpartition(f"{file.name}: ")[2]
        raise BadCheckpoint(f"{name}: {file.name} {reason}; choose another revision") from None


def _tensors(name: str, snapshot: Snapshot, weights: list[RemoteFile]) -> dict[str, TensorInfo]:
    """The tensors of some safetensors files by their headers, sorted by name."""
    api, repo, commit = snapshot.hub.api, snapshot.repo, snapshot.commit

    def header(file: RemoteFile) -> SafetensorsFileMetadata:
        return api.parse_safetensors_file_metadata(repo, file.name, revision=commit)

    with ThreadPoolExecutor(min(_AT_ONCE, len(weights))) as threads:
        headers = list(threads.map(header, weights))
    tensors: dict[str, TensorInfo] = {}
    for file, described in zip(weights, headers, strict=True):
        for tensor, info in described.tensors.items():
            tensors[tensor] = _tensor(name, tensor, info, snapshot.folder / file.name)
        if len(tensors) > _MOST_TENSORS:
            raise BadCheckpoint(f"{name}: has more than {_MOST_TENSORS:,} tensors")
    return dict(sorted(tensors.items()))


def _tensor(name: str, tensor: str, info: Any, file: Path) -> TensorInfo:
    if info.dtype not in WIDTHS:
        raise BadCheckpoint(
            f"{name}: tensor {tensor} has type {shown(info.dtype)}, which is not supported; choose "
            "bfloat16, float16 or float32"
        )
    shape = info.shape
    if not isinstance(shape, list) or any(type(side) is not int or side < 0 for side in shape):
        raise BadCheckpoint(f"{name}: tensor {shown(tensor)} has no shape in {file.name}")
    size = WIDTHS[info.dtype]
    for side in shape:
        size *= side
    return TensorInfo(tensor, info.dtype, tuple(shape), file, 0, size)


def _mapping(value: Any) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
