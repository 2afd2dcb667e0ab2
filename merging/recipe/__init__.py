"""YAML <-> recipe: mergekit's schema and ours, and a recipe in words."""

from merging.recipe.reading import (
    DTYPES,
    MAX_PARTITIONS,
    Recipe,
    Source,
    averages_models,
    build,
    describe,
    dump,
    from_mapping,
    load,
    parse,
)

__all__ = [
    "DTYPES", "MAX_PARTITIONS", "Recipe", "Source", "averages_models", "build", "describe",
    "dump", "from_mapping", "load", "parse",
]  # fmt: skip
