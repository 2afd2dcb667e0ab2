"""What a live model needs of memory, held against what is free before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from merging.checkpoints.checkpoint import MERGEABLE, WIDTHS
from merging.errors import NotEnoughSpace
from merging.recipe import Recipe
from merging.run import space
from merging.run.preflight import open_recipe
from merging.run.tensors import STORED
from merging.trial.memory import free_bytes, gigabytes
from merging.trial.placement import main_device

_SPARE = 0.25  # of the model: loaders leave as much of what is free for what is read and written


@dataclass(frozen=True)
class Needs:
    """Bytes of memory.

    Attributes:
        model: the network in the result's type.
        merging: what the engine holds at its peak, see `merging.run.space.memory_bytes`.
        spare: for the tokens that are read and written.
        free: what can be asked for now, on the device where the network would lie.
        device: that one, "cpu" or "cuda:0".
    """

    name: str
    model: int
    merging: int
    spare: int
    free: int
    device: str

    @property
    def total(self) -> int:
        """All that is needed there: on a GPU, merging is bounded by what is left."""
        return self.model + self.spare + (self.merging if self.device == "cpu" else 0)

    @property
    def fits(self) -> bool:
        """True where it can be loaded now."""
        return self.total <= self.free

    def fits_without(self, others: int) -> bool:
        """True where it can be loaded once `others` bytes are let go of, and not before."""
        return not self.fits and self.total <= self.free + others

    def check(self, others: int = 0) -> None:
        """Raises NotEnoughSpace, with the numbers and a way out, where it does not fit.

        Args:
            others: bytes of loaded models that could be let go of.
        """
        if self.fits:
            return
        parts = [f"{gigabytes(self.model)} for the model"]
        parts += [f"{gigabytes(self.merging)} while it merges"] if self.device == "cpu" else []
        parts += [f"{gigabytes(self.spare)} to spare"]
        mend = "close other programs, or write the merge and open it in Chat"
        if self.fits_without(others):
            mend = f"other loaded models hold {gigabytes(others)}: let go of them"
        raise NotEnoughSpace(
            f"the live model of {self.name} needs {gigabytes(self.total)} of memory "
            f"({', '.join(parts)}) and {gigabytes(self.free)} are free; {mend}"
        )


def needs(recipe: Recipe, device: str = "auto") -> Needs:
    """What the live model of a recipe would need, from headers alone.

    Raises:
        MergeError: as `open_recipe`.
        DeviceUnavailable: the device is not there.
    """
    family, main = open_recipe(recipe), main_device(device)
    width = None if recipe.dtype is None else WIDTHS[STORED[recipe.dtype]]
    model = sum(
        info.numel * (width if width and info.dtype in MERGEABLE else info.width)
        for info in family.base.tensors.values()
    )
    spare, merging = int(_SPARE * model), space.memory_bytes(family, recipe)
    return Needs(family.base.name, model, merging, spare, free_bytes(main), str(main))
