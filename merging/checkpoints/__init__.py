"""Model folders: found by name, read lazily, matched into families, written whole."""

from merging.checkpoints.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from merging.checkpoints.family import Entry, Family, open_family
from merging.checkpoints.layout import Place, place
from merging.checkpoints.names import resolve

__all__ = [
    "Checkpoint",
    "Entry",
    "Family",
    "Place",
    "TensorInfo",
    "open_checkpoint",
    "open_family",
    "place",
    "resolve",
]
