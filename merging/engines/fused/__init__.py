"""The engine's fused twin on the CPU: raw tensors in, merged tensors out, several at a time.

Same measurements, same decisions, same bits as `engines.eager` through torch; what differs is
that one C loop does what takes torch a dozen passes, and that worker threads take a tensor each.
Raw tensors are read where they lie: of mapped files a piece at a time is in memory, so memory
does not grow with the model nor, beyond a small constant, with the number of experts.
"""

from merging.engines.fused.reader import FusedReader
from merging.engines.fused.stream import FusedStream, is_worthwhile, workers, would_run

__all__ = ["FusedReader", "FusedStream", "is_worthwhile", "workers", "would_run"]
