"""Reads tensors back while others are still being merged: compares every byte, and fingerprints.

A processor that waits for memory has time for this, so that the check costs little of a merge.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from merging.checkpoints import Checkpoint, Entry
from merging.checkpoints.checksum import checksum
from merging.checkpoints.fingerprint import combined, tensor_digest
from merging.engines.eager import Stream
from merging.errors import VerificationFailed

_THREADS = 2


class ReadBack:
    """The tensors of one result, read back as they are finished.

    Args:
        written: the hidden folder, opened.
        out: what messages call it.
        stream: told of the progress, and asked whether to stop.

    Attributes:
        phase: what the progress is called.
    """

    def __init__(self, written: Checkpoint, out: Path, stream: Stream) -> None:
        self._written, self._out, self._stream = written, out, stream
        self._pool = ThreadPoolExecutor(_THREADS, "readback")
        self._digests: dict[str, Future[bytes]] = {}
        self.phase = "merge"

    def submit(self, entry: Entry, expected: int) -> None:
        """A tensor is finished. expected: the checksum of the bytes that were handed to the writer.

        May be called from any thread, once per tensor.
        """
        self._digests[entry.name] = self._pool.submit(self._digest, entry, expected)

    def fingerprint(self) -> str:
        """Waits for all tensors that were submitted; the fingerprint of the model they make up.

        Raises:
            VerificationFailed: a tensor reads back otherwise than it was written.
        """
        return combined(self._digests[name].result() for name in sorted(self._digests))

    def close(self) -> None:
        """Stops reading."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _digest(self, entry: Entry, expected: int) -> bytes:
        bytes_sum = 0

        def see(block: memoryview, start: int) -> None:
            nonlocal bytes_sum
            self._stream.check_cancelled()
            bytes_sum += checksum(block, start)

        digest = tensor_digest(self._written, self._written.tensors[entry.name], see=see)
        if (bytes_sum - expected) % (1 << 64):
            raise VerificationFailed(
                f"{self._out}: tensor {entry.name} reads back otherwise than it was written; the "
                "disk or the memory is at fault: choose another disk"
            )
        merged = entry.numel if entry.status == "merged" else 0
        self._stream.advance(self.phase, entry, merged)
        return digest


__all__ = ["ReadBack"]
