"""A result that is not merged yet, by its header: names, types and shapes follow from headers."""

from __future__ import annotations

from merging.checkpoints import Checkpoint, Family, TensorInfo
from merging.kinship import giver_of
from merging.recipe import Recipe
from merging.run import companions
from merging.run.tensors import specs_of


def promise(name: str, recipe: Recipe, family: Family) -> Checkpoint:
    """What a merge will write, by its header: no tensor of it can be read yet."""
    giver = giver_of(recipe, family.base, family.experts)
    file = giver.folder / f"{name} is not merged yet"
    tensors = {
        spec.name: TensorInfo(spec.name, spec.dtype, spec.shape, file, 0, spec.size_bytes)
        for spec in specs_of(family, recipe)
    }
    config = companions.config(recipe, family)
    return Checkpoint(name, giver.folder, config, dict(sorted(tensors.items())))
