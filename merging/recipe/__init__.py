"""YAML <-> recipe: mergekit's schema and ours, and a recipe in words."""

from merging.declarations.values import Recipe, Source
from merging.recipe.differences import differences
from merging.recipe.reading import DTYPES, build, from_mapping, load, parse
from merging.recipe.values import MAX_PARTITIONS
from merging.recipe.words import describe
from merging.recipe.writing import dump

__all__ = [
    "DTYPES",
    "MAX_PARTITIONS",
    "Recipe",
    "Source",
    "build",
    "describe",
    "differences",
    "dump",
    "from_mapping",
    "load",
    "parse",
]
