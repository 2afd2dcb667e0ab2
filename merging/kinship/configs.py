"""Configs compared key by key: what is not the same model, and what shapes do not show.

The same setting is spelled in several ways: rope settings as transformers 4 (rope_theta,
rope_scaling) and as transformers 5 (rope_parameters), a text model's settings under text_config,
defaults left out. Both sides are brought to one spelling first, so that only real differences are
told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from merging.checkpoints import Checkpoint
from merging.checkpoints.tying import ties_embeddings
from merging.kinship.problem import Problem, called, grouped, have, listed, value_text
from merging.kinship.ropes import KEYS as ROPE
from merging.kinship.ropes import compared as ropes_compared

Settings = dict[str, Any]

_COUNTS = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth"), "layers"),
    "encoder_layers": "encoder layers",
    "decoder_layers": "decoder layers",
    "num_decoder_layers": "decoder layers",
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), "attention heads"),
    "encoder_attention_heads": "encoder attention heads",
    "decoder_attention_heads": "decoder attention heads",
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_head_kv"), "key-value heads"),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), "hidden units"),
    **dict.fromkeys(("head_dim", "d_kv"), "dimensions per head"),
    **dict.fromkeys(("intermediate_size", "n_inner", "d_ff", "ffn_dim"), "units inside an MLP"),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), "experts in a layer"),
}
"""Sizes of which one model has one: settings by name, and what they count."""

_NEUTRAL = frozenset((
    "dtype", "torch_dtype", "use_cache", "transformers_version", "architectures", "vocab_size",
    "initializer_range", "initializer_factor", "init_std", "pretraining_tp",
    "gradient_checkpointing",
    "use_return_dict", "return_dict", "output_attentions", "output_hidden_states", "torchscript",
    "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params",
    "pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id", "sep_token_id", "cls_token_id",
    "attn_implementation", "use_flash_attention", "use_flash_attn", "router_aux_loss_coef",
    "output_router_logits", "prefix", "keys_to_ignore_at_inference", "is_local",
    "local_files_only", "name_or_path", "model_name", "unsloth_version", "unsloth_fixed",
    "tokenizer_class", "quantization_config", "auto_map", "pruned_heads", "chunk_size_feed_forward",
    "router_jitter_noise", "classifier_dropout", "license", "apply_spec_augment",
    "tf_legacy_loss", "use_bfloat16",
))  # fmt: skip
"""Settings that do not change what the weights compute."""
_NEUTRAL_ENDS = (
    "_config",
    "dropout",
    "_pdrop",
    "_drop",
    "_dropout_prob",
    "dropout_rate",
    "layerdrop",
)
_NEUTRAL_STARTS = ("_", "mask_time_", "mask_feature_")  # the latter hide parts of what is learned
_GENERATION = frozenset((
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
    "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids", "decoder_start_token_id",
))  # fmt: skip
"""Settings of transformers 4 that only matter when a text is written."""

_DEFAULTS: Settings = {
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "sliding_window": None,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "is_encoder_decoder": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_qk_norm": False,
    "use_bidirectional_attention": False,
    "clip_qkv": None,
}
"""What a silent config means, where architectures agree on it."""

_FUNCTION = frozenset((
    *_DEFAULTS, "hidden_activation", "activation_function", "layer_norm_eps",
    "layer_norm_epsilon", "norm_eps", "norm_epsilon", "layernorm_epsilon", "partial_rotary_factor",
    "max_window_layers", "query_pre_attn_scalar", "num_experts_per_tok", "norm_topk_prob",
    "logit_scale", "logits_scaling", "embedding_multiplier", "residual_multiplier", "mup_scale",
    "attention_multiplier", "scale_attn_weights", "scale_emb", "parallel_attn", "alibi",
    "use_parallel_residual", "tie_word_embeddings", "max_position_embeddings", "feed_forward_proj",
    "layer_types", "activation",
))  # fmt: skip
"""Settings that change it, also where one config alone has them."""
_DERIVED = frozenset(
    (
        "head_dim",
        "layer_types",
        "sliding_window_pattern",
        "query_pre_attn_scalar",
        "no_rope_layers",
        "num_key_value_heads",
        "max_window_layers",
        "model_type",
        "id2label",
    )
)
"""Settings that follow from others, or from the architecture, where a config is silent."""
_SLIDING = ("sliding_window", "max_window_layers")
_AFTER_PAD = re.compile(r"roberta|camembert|longformer|mpnet|data2vec-text|^esm$")
"""Model types that count a text's positions from the id of its padding on."""

_WHY = {
    "id2label": "the classifier's rows stand for other labels",
    **dict.fromkeys(
        ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
        "a limit on the length of texts",
    ),
}
"""What another value means, where it does not change what the weights compute."""
_TEXT = ("text_config", "llm_config", "language_config")
_MOST = 12  # differences told one by one


def compare(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[Problem]:
    """What the experts' configs say otherwise than the base's."""
    sides = {expert.name: settings_of(base.config, expert.config) for expert in experts}
    problems = []
    for key in dict.fromkeys(key for pair in sides.values() for side in pair for key in side):
        differing = {
            name: (pair[0].get(key, _ABSENT), pair[1].get(key, _ABSENT))
            for name, pair in sides.items()
            if not _same(pair[0].get(key, _ABSENT), pair[1].get(key, _ABSENT))
        }
        for names, (ours, theirs) in grouped(differing):
            if problem := _problem(base.name, names, key, ours, theirs):
                problems.append(problem)
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:  # the rest follows from these
        return errors
    if len(problems) > _MOST:
        problems.sort(key=lambda problem: problem.severity == "note")
        more = f"{len(problems) - _MOST} more settings differ"
        problems[_MOST:] = [Problem("warning", "config.json", more, "config")]
    return problems


_ABSENT = object()


def other_size(base: Checkpoint, expert: Checkpoint) -> str:
    """The first thing in which two configs differ that no model of one family does, with both
    values: "2 layers, the base 28"; "" where there is none."""
    ours, theirs = settings_of(base.config, expert.config)
    differing = [key for key in ours if key in theirs and not _same(ours[key], theirs[key])]
    for key in sorted(differing, key=_telling):
        last = key.rpartition(".")[2]
        its, mine = value_text(theirs[key]), value_text(ours[key])
        if key == "model_type":
            return f"another architecture: {its}, the base {mine}"
        if last in _COUNTS:
            return f"{its} {_COUNTS[last]}, the base {mine}"
    return ""


def _telling(key: str) -> tuple[bool, ...]:
    """Sorts settings: what the model is, how deep, how wide, whatever follows from these."""
    counted = _COUNTS.get(key.rpartition(".")[2])
    return (key != "model_type", counted != "layers", counted != "hidden units")


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, float):
        return math.isclose(ours, theirs, rel_tol=1e-6)  # 1e-05 as a float32
    return ours is theirs or ours == theirs


def _problem(base: str, names: list[str], key: str, ours: Any, theirs: Any) -> Problem | None:
    last = key.rpartition(".")[2]
    who = listed(names)
    if last == "model_type" and _ABSENT not in (ours, theirs):
        text = f"{who}: model_type {value_text(theirs)}, {called(base)} {value_text(ours)}"
        if "." in key:  # a text model and the text part of another: its name is not decisive
            return Problem("warning", who, f"{text}; see that they are one architecture", "config")
        return Problem(
            "error",
            who,
            f"{text}: another architecture; choose experts fine-tuned from this base",
            "config",
        )
    if last in _COUNTS and _ABSENT not in (ours, theirs):
        counts = f"{value_text(theirs)} {_COUNTS[last]}, {called(base)} {value_text(ours)}"
        return Problem(
            "error",
            who,
            f"{who} {have(names)} {counts} ({key}): not fine-tuned from this base; choose experts "
            "that were",
            "layers" if "layers" in _COUNTS[last] else "config",
        )
    if _ABSENT in (ours, theirs) and last not in _FUNCTION:
        where = called(base) if theirs is _ABSENT else who
        value = value_text(ours if theirs is _ABSENT else theirs)
        return Problem("note", who, f"config.json: {key}: {value} in {where} alone", "config")
    value = "no " + key if theirs is _ABSENT else f"{key}: {value_text(theirs)}"
    mine = "none" if ours is _ABSENT else value_text(ours)
    sure = last in _FUNCTION or "rope_parameters" in key
    does = "changes" if sure else "may change"
    why = _WHY.get(last, f"it {does} what the weights compute")
    return Problem(
        "warning",
        who,
        f"config.json {have(names)} {value}, {called(base)} {mine}; {why}; the result keeps the "
        "base's",
        "config",
    )


def settings_of(base: Mapping[str, Any], expert: Mapping[str, Any]) -> tuple[Settings, Settings]:
    """Two configs as flat settings by dotted names, in one spelling. Where one model is a text
    model and the other holds one under text_config, these two are compared."""
    ours, theirs = _text_key(base), _text_key(expert)
    if bool(ours) != bool(theirs):
        prefix = f"{ours or theirs}."
        return _pair(base[ours] if ours else base, expert[theirs] if theirs else expert, prefix)
    first, second = _pair(base, expert, "")
    first["tie_word_embeddings"] = ties_embeddings(base)
    second["tie_word_embeddings"] = ties_embeddings(expert)
    return first, second


def _text_key(config: Mapping[str, Any]) -> str | None:
    return next((key for key in _TEXT if isinstance(config.get(key), dict)), None)


def _pair(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str
) -> tuple[Settings, Settings]:
    """Two parts of configs, nested ones under dotted names."""
    first, second = _plain(ours), _plain(theirs)
    for one, other in ((first, second), (second, first)):
        for key in list(other):
            if key in one:
                continue
            if key in _DERIVED:
                del other[key]
            elif key in _DEFAULTS:
                one[key] = _DEFAULTS[key]
            elif other[key] in (None, False):
                del other[key]
    ropes = ropes_compared(ours, theirs)
    sides = tuple(
        {prefix + key: value for key, value in (side | rope).items()}
        for side, rope in zip((first, second), ropes, strict=True)
    )
    for key in [key for key in ours if key.endswith("_config")]:
        mine, its = ours[key], theirs.get(key)
        if key not in _NEUTRAL and isinstance(mine, dict) and isinstance(its, dict):
            for side, more in zip(sides, _pair(mine, its, f"{prefix}{key}."), strict=True):
                side |= more
    return sides[0], sides[1]


def _plain(config: Mapping[str, Any]) -> Settings:
    """The settings of one part that may change what its weights compute."""
    settings = {key: value for key, value in config.items() if not _is_neutral(key)}
    if config.get("use_sliding_window") is False:
        settings = {key: v for key, v in settings.items() if key not in _SLIDING}
    heads = config.get("num_attention_heads")
    if heads is not None and "rms_norm_eps" in config and not settings.get("num_key_value_heads"):
        settings["num_key_value_heads"] = heads
    if not settings.get("head_dim"):
        settings.pop("head_dim", None)
    if settings.get("layer_types") is None:
        settings.pop("layer_types", None)
    labels = settings.get("id2label")
    if not isinstance(labels, dict) or all(
        str(label).startswith("LABEL_") for label in labels.values()
    ):
        settings.pop("id2label", None)  # the names that transformers gives where nobody did
    if _AFTER_PAD.search(str(config.get("model_type"))) and "pad_token_id" in config:
        settings["pad_token_id"] = config["pad_token_id"]
    return settings


def _is_neutral(key: str) -> bool:
    if key in _NEUTRAL or key in _GENERATION or key in ROPE or key == "tie_word_embeddings":
        return True
    return key.endswith(_NEUTRAL_ENDS) or key.startswith(_NEUTRAL_STARTS)
