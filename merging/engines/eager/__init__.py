"""Drives pure functions over the chunks of a family, through torch: reading, progress, cancel.

Nothing here knows a method's formula. A `Stream` opens a `TensorReader` per tensor, which measures
and merges it chunk by chunk: small tensors stay in memory between passes, large ones are read
again, so memory is bounded by the chunk, not by the model. `engines.fused` does the same with
fused loops.
"""

from merging.engines.eager.device import pick_device
from merging.engines.eager.profile import Profile
from merging.engines.eager.progress import Progress, ProgressCallback
from merging.engines.eager.reader import MergedChunk, TensorReader
from merging.engines.eager.stream import Decide, Stream
from merging.engines.eager.work import CHUNK, GPU_CHUNK, RUN

__all__ = [
    "CHUNK",
    "GPU_CHUNK",
    "RUN",
    "Decide",
    "MergedChunk",
    "Profile",
    "Progress",
    "ProgressCallback",
    "Stream",
    "TensorReader",
    "pick_device",
]
