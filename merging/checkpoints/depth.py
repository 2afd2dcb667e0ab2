"""A config whose layers are stacked anew: their number, and every list that has one item a layer.

What a config.json says of single layers stands in lists as long as the model is deep
(`layer_types`), or in lists of layers' numbers (`mlp_only_layers`). Where it is silent and the
architecture fills such a list by a pattern ("every sixth layer"), the pattern holds no longer once
layers are stacked anew: transformers is asked for the list, which is then written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merging.checkpoints.layout import is_tower
from merging.errors import RecipeError

_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_NUMBERS = (
    "mlp_only_layers",
    "moe_layers",
    "cross_attention_layers",
    "full_attn_idxs",
    "attn_layer_indices",
)
"""Lists of layers by their numbers."""
_NOT_BY_LAYER = ("architectures", "_token_id", "_token_ids", "_tokens", "_section", "_factor")
_PATTERNS = ("sliding", "interval", "pattern", "period", "every", "_step", "chunk", "layer_type")
"""Parts of settings' names that give layers their kinds by a pattern."""
_LEADING = ("first_k_dense_replace",)
"""How many of the first layers are of another kind."""
_AHEAD = "num_nextn_predict_layers"

Config = Mapping[str, Any]


def layers_in(config: Config) -> int | None:
    """How many layers a config says that a text runs through."""
    for part in (config, *_parts(config).values()):
        for key in _COUNTS:
            if isinstance(part.get(key), int):
                return part[key]
    return None


def restacked(config: Config, rows: Sequence[tuple[Config, int]]) -> dict[str, Any]:
    """A config for other layers.

    Args:
        config: of the model that gives everything else.
        rows: for every layer of the result, the config of its model and its number there.

    Raises:
        RecipeError: layers whose kind follows from their place are out of it.
    """
    result = _restacked(config, rows)
    for key in _parts(config):
        inner = [(_parts(one).get(key) or config[key], layer) for one, layer in rows]
        result[key] = _restacked(config[key], inner)
    return result


def _parts(config: Config) -> dict[str, Any]:
    """The configs inside a config that describe a text's layers."""
    return {
        key: part
        for key, part in config.items()
        if isinstance(part, dict) and key.endswith("_config") and not is_tower(key)
    }


def _restacked(config: Config, rows: Sequence[tuple[Config, int]]) -> dict[str, Any]:
    """One part of a config; unchanged where it counts no layers."""
    counts = [key for key in _COUNTS if isinstance(config.get(key), int)]
    if not counts:
        return dict(config)
    depth = config[counts[0]]
    distinct = {id(one): one for one, _ in (*rows, (config, 0))}
    full = {key: {**_by_pattern(one), **one} for key, one in distinct.items()}
    own = full[id(config)]
    result = dict(config)
    for key, value in own.items():
        if _is_by_layer(key, value, depth):
            result[key] = [_item(full[id(one)].get(key, value), layer) for one, layer in rows]
    for key in _NUMBERS:
        if isinstance(config.get(key), list):
            result[key] = [i for i, (one, layer) in enumerate(rows) if layer in one.get(key, ())]
    for key in _LEADING:
        if isinstance(config.get(key), int):
            result[key] = _leading(key, rows)
    if _AHEAD in config:
        result[_AHEAD] = 0
    return result | dict.fromkeys(counts, len(rows))


def _is_by_layer(key: str, value: Any, depth: int) -> bool:
    return isinstance(value, list) and len(value) == depth and not key.endswith(_NOT_BY_LAYER)


def _item(values: Any, layer: int) -> Any:
    return values[layer] if isinstance(values, list) and layer < len(values) else None


def _leading(key: str, rows: Sequence[tuple[Config, int]]) -> int:
    inside = [layer < one.get(key, 0) for one, layer in rows]
    count = inside.index(False) if False in inside else len(inside)
    if any(inside[count:]):
        late = inside.index(True, count)
        raise RecipeError(
            f"slices: layer {late} of the result is one of the first layers of its model, which "
            f"are of another kind ({key}); such layers stand before all others"
        )
    return count


def _by_pattern(config: Config) -> dict[str, list[Any]]:
    """The lists by layer that transformers fills in where a config is silent."""
    if not any(part in key for key, value in config.items() for part in _PATTERNS if value):
        return {}
    from transformers import CONFIG_MAPPING

    try:
        whole = CONFIG_MAPPING[str(config.get("model_type"))].from_dict(dict(config)).to_dict()
    except Exception:  # of an unknown architecture, or a config that it does not take
        return {}
    return {
        key: value for key, value in whole.items() if "layer" in key and isinstance(value, list)
    }
