"""Content fingerprints of a model: of its tensors, whatever files hold them.

Two models have the same fingerprint if and only if (up to hash collisions) they have the same
tensors: names, types, shapes and bytes. Up to FULL_BYTES every byte is hashed ("sha256:"); above
that inputs are sampled, the first, middle and last 64 KiB of every tensor ("sampled:").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

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
    digest = hashlib.sha256()
    digest.update(f"{info.name}\0{info.dtype}\0{list(info.shape)}\0".encode())
    for start, block in model.blocks(info, _ranges(info, whole)):
        digest.update(block)
        see(block, start)
    return digest.digest()


def _ranges(info: TensorInfo, whole: bool) -> list[tuple[int, int]] | None:
    size = info.size_bytes
    if whole or size <= 3 * _SAMPLE:
        return None
    middle = (size - _SAMPLE) // 2
    return [(start, start + _SAMPLE) for start in (0, middle, size - _SAMPLE)]
