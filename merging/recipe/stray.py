"""Keys that stand where they mean nothing, answered with where they belong.

mergekit passes over them in silence, and many published recipes hold one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from merging.errors import RecipeError, shown
from merging.methods import PRUNERS, RULES
from merging.recipe.values import AXES, HARMLESS, SWITCHES, nearest
from merging.system.lines import line_of

TOP_KEYS = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "parameters",
    "dtype",
    "out_dtype",
    "modules",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "keep_base",
    "record",
    "name",
)
"""The keys of a recipe itself."""
_OPTIONS = frozenset(
    (
        "allow_crimes",
        "async_write",
        "clone_tensors",
        "copy_tokenizer",
        "cuda",
        "device",
        "gpu_rich",
        "lazy_unpickle",
        "lora_merge_cache",
        "low_cpu_memory",
        "multi_gpu",
        "out_shard_size",
        "quiet",
        "random_seed",
        "read_to_gpu",
        "safe_serialization",
        "transformers_cache",
        "trust_remote_code",
        "verbose",
        "write_model_card",
        "write_threads",
    )
)
"""Options of mergekit's command line."""
_INSTEAD = {
    "random_seed": "the seed of random pruning is parameters: seed:",
    "out_shard_size": "the size of files is --shard-size",
    "device": "the device is --device",
    "cuda": "the device is --device",
}
_PARAMETERS = frozenset(
    (
        *AXES,
        *SWITCHES,
        *HARMLESS,
        *(knob.name for method in (*PRUNERS.values(), *RULES.values()) for knob in method.knobs),
    )
)


def unknown(key: str, where: str, valid: Sequence[str], *, short: bool = True) -> RecipeError:
    """The error for a key that is not valid at its place, on the key's line.

    Args:
        where: the place, as a message begins; "" at the top.
        valid: what would be.
        short: the nearest valid one is named alone.
    """
    place, line = f"{where}: " if where else "", line_of(key)
    if home := _home(key, valid):
        return RecipeError(f"{place}{shown(key)} {home}", line=line)
    near = nearest(key, valid) if short else f"; valid: {', '.join(valid)}"
    return RecipeError(f"{place}unknown key {shown(key)}{near}", line=line)


def check_home(values: Iterable[str], where: str, valid: Collection[str]) -> None:
    """Raises RecipeError for a parameter that is no parameter but means something elsewhere."""
    for key in values:
        if key not in valid and _home(key, ()):
            raise unknown(key, where, ())


def _home(key: str, valid: Collection[str]) -> str:
    """What to do with a key that means something elsewhere; "" for any other."""
    if key in _OPTIONS:
        instead = _INSTEAD.get(key, "leave it out")
        return f"is an option of mergekit's command line, not of a recipe; {instead}"
    if key in _PARAMETERS and "parameters" in valid:
        return "has no effect here; move it under parameters:"
    homes = {
        "pad_to_multiple_of": "under tokenizer:",
        "tokens": "under tokenizer:",
        "layer_range": "to a source of a slice: {model: ..., layer_range: [0, 16]}",
        "sources": "to a slice: slices: [{sources: [...]}]",
        "filter": "to a parameter's value: [{filter: mlp, value: 0.5}, {value: 1}]",
        "value": "to a parameter's value: [{filter: mlp, value: 0.5}, {value: 1}]",
        "model": "to the list of models: models: [{model: ...}]",
    }
    if key in ("model", "layer_range") and "sources" in valid:
        return "belongs to a model of the slice; move it under sources:"
    if key in homes and key not in valid:
        return f"has no effect here; move it {homes[key]}"
    if key in TOP_KEYS and key not in valid:
        return "belongs to the whole recipe; move it to the top, beside merge_method:"
    return ""
