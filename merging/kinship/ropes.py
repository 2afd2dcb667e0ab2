"""Rope settings in one spelling, whichever version of transformers wrote them.

transformers 4 writes rope_theta, rope_scaling and, for models with two kinds of attention,
rope_local_base_freq; transformers 5 writes rope_parameters, nested by the kind of attention where
there are two. GPT-NeoX has rotary_emb_base and rotary_pct.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEYS = frozenset(
    (
        "rope_theta",
        "rope_scaling",
        "rope_parameters",
        "rope_local_base_freq",
        "rope_type",
        "partial_rotary_factor",
        "rotary_pct",
        "rotary_emb_base",
    )
)
"""Settings that are rope's."""
_SILENT = {"rope_theta": 10000.0, "rope_type": "default"}  # what most architectures take
_DERIVED = ("original_max_position_embeddings", "mrope_section", "mrope_interleaved")
Kinds = dict[str, dict[str, Any]]


def compared(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[dict, dict]:
    """The rope settings in which two configs differ, as flat settings by one name each:
    "rope_parameters.rope_theta" where that alone differs, else "rope_parameters"."""
    first, second = _aligned(_kinds(ours), _kinds(theirs))
    pair: tuple[dict, dict] = ({}, {})
    for kind in first:
        sides = first[kind], second.get(kind, {})
        if not any(sides):
            continue
        full = [{**_SILENT, **side} if side else dict(_SILENT) for side in sides]
        keys = [key for key in dict.fromkeys([*full[0], *full[1]]) if _differ(key, *full)]
        name = ".".join(filter(None, ("rope_parameters", kind)))
        if len(keys) == 1 and all(keys[0] in side for side in full):
            pair[0][f"{name}.{keys[0]}"] = full[0][keys[0]]
            pair[1][f"{name}.{keys[0]}"] = full[1][keys[0]]
        elif keys:
            for settings, side in zip(pair, full, strict=True):
                settings[name] = {key: side[key] for key in keys if key in side}
    return pair


def _differ(key: str, ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    if key in _DERIVED and not (key in ours and key in theirs):
        return False
    return ours.get(key) != theirs.get(key)


def _kinds(config: Mapping[str, Any]) -> Kinds:
    parameters = config.get("rope_parameters")
    parameters = dict(parameters) if isinstance(parameters, dict) else {}
    nested = {kind: _typed(value) for kind, value in parameters.items() if isinstance(value, dict)}
    if nested:
        return nested
    scaling = config.get("rope_scaling")
    flat = {**(scaling if isinstance(scaling, dict) else {}), **parameters}
    theta = config.get("rope_theta", config.get("rotary_emb_base"))
    if theta is not None:
        flat.setdefault("rope_theta", theta)
    partial = config.get("partial_rotary_factor", config.get("rotary_pct"))
    if partial is not None:
        flat.setdefault("partial_rotary_factor", partial)
    if flat.get("partial_rotary_factor") in (1, 1.0):
        del flat["partial_rotary_factor"]
    local = config.get("rope_local_base_freq")
    if local is not None:
        return {"full_attention": _typed(flat), "sliding_attention": _typed({"rope_theta": local})}
    return {"": _typed(flat)}


def _typed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the one spelling of their type."""
    if not values:
        return {}
    kind = values.get("rope_type", values.get("type")) or "default"
    return {**{key: value for key, value in values.items() if key != "type"}, "rope_type": kind}


def _aligned(first: Kinds, second: Kinds) -> tuple[Kinds, Kinds]:
    """Both by the same kinds: what one says for all is the other's full attention."""
    if set(first) == set(second):
        return first, second
    whole = "full_attention"
    if "" in first and whole in second:
        return {whole: first[""]}, {whole: second[whole]}
    if "" in second and whole in first:
        return {whole: first[whole]}, {whole: second[""]}
    shared = [kind for kind in first if kind in second]
    return {kind: first[kind] for kind in shared}, {kind: second[kind] for kind in shared}
