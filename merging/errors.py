"""Errors a user can cause. Each message is one line: what, which model, which tensor, what to do.

Anything else that escapes `merging` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations


class MergeError(Exception):
    """The user's input or machine does not allow the work; the message says what to do instead."""


class ModelNotFound(MergeError):
    """A model reference names no folder, built-in model or downloaded Hub model."""


class UnsafeFile(MergeError):
    """The model asks for pickle files or remote code, which are never run."""


class BadFile(MergeError):
    """A small file (a recipe, a config, an index) cannot be read, or is not what it should be."""


class BadCheckpoint(MergeError):
    """A file of the checkpoint is missing, truncated or malformed."""


class FamilyMismatch(MergeError):
    """The models do not descend from one base: too few tensors match."""


class RecipeError(MergeError):
    """The recipe is not valid; the message names the key and the nearest valid one."""


class NonFinite(MergeError):
    """A tensor holds NaN or infinity, in an input or in the result."""


class NotEnoughSpace(MergeError):
    """The disk or the memory does not hold what the merge needs."""


class OutputExists(MergeError):
    """The output folder exists and overwriting was not asked for."""


class DeviceUnavailable(MergeError):
    """The device asked for is not present."""


class VerificationFailed(MergeError):
    """The written files do not read back as what was merged."""


class Cancelled(MergeError):
    """The work was stopped on request; nothing was left behind."""
