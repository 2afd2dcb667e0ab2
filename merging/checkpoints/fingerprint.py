"""Content fingerprints of a model: of its tensors, whatever files hold them.

Two models have the same fingerprint if and only if (up to hash collisions) they have the same
tensors: names, types, shapes and bytes. Up to FULL_BYTES every byte is hashed ("sha256:"); above
that inputs are sampled, the first, middle and last 64 KiB of every tensor ("sampled:").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from merging.checkpoints.checkpoint import Checkpoint, TensorInfo

FULL_BYTES = 1 << 26  # above, hashing every byte would take longer than merging them
_SAMPLE = 1 << 16


def fingerprint(model: Checkpoint, *, full: bool = False) -> str:
    """Returns "sha256:..." or, for large models unless `full`, "sampled:..."."""
    whole = full or model.size_bytes <= FULL_BYTES
    digests = [tensor_digest(model, info, whole=whole) for info in model.tensors.values()]
    return combined(digests, whole=whole)


def combined(digests: Iterable[bytes], *, whole: bool = True) -> str:
    """The fingerprint of a model from the digests of its tensors, sorted by name."""
    total = hashlib.sha256(b"".join(digests)).hexdigest()
    return f"{'sha256' if whole else 'sampled'}:{total}"


def tensor_digest(
    model: Checkpoint,
    info: TensorInfo,
    *,
    whole: bool = True,
    see: Callable[[memoryview, int], None] = lambda block, position: None,
) -> bytes:
    """sha256 of one tensor: its name, type, shape and (all or sampled) bytes.

    Args:
        see: gets every block of bytes that is hashed, and where it begins.
    """

    def blocks() -> Iterator[memoryview]:
        for start, block in model.blocks(info, _ranges(info, whole)):
            yield block
            see(block, start)

    return digest_of(info.name, info.dtype, info.shape, blocks())


def digest_of(
    name: str, dtype: str, shape: Sequence[int], blocks: Iterable[memoryview | bytes]
) -> bytes:
    """sha256 of a tensor that lies anywhere: its name, type (as safetensors calls it), shape and
    bytes in order."""
    digest = hashlib.sha256(f"{name}\0{dtype}\0{list(shape)}\0".encode())
    for block in blocks:
        digest.update(block)
    return digest.digest()


def _ranges(info: TensorInfo, whole: bool) -> list[tuple[int, int]] | None:
    size = info.size_bytes
    if whole or size <= 3 * _SAMPLE:
        return None
    middle = (size - _SAMPLE) // 2
    return [(start, start + _SAMPLE) for start in (0, middle, size - _SAMPLE)]
