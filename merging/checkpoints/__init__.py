"""Model folders: found by name, read lazily, matched into families, written whole."""

from merging.checkpoints.checkpoint import Checkpoint, TensorInfo, open_checkpoint
from merging.checkpoints.family import Entry, Family, open_family
from merging.checkpoints.fingerprint import fingerprint
from merging.checkpoints.layout import Place, place
from merging.checkpoints.names import resolve, short_names
from merging.checkpoints.writer import ModelWriter, TensorSpec

__all__ = [
    "Checkpoint",
    "Entry",
    "Family",
    "ModelWriter",
    "Place",
    "TensorInfo",
    "TensorSpec",
    "fingerprint",
    "open_checkpoint",
    "open_family",
    "place",
    "resolve",
    "short_names",
]
