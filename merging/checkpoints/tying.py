"""Whether a model's output head is its token embedding, where its config may not say so.

transformers leaves a setting out of config.json where it is the architecture's default, so what
silence means depends on the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TIED_BY_DEFAULT = frozenset((
    "albert", "aya_vision", "bart", "bert", "bert-generation", "big_bird", "bigbird_pegasus",
    "biogpt", "blenderbot", "blenderbot-small", "bloom", "camembert", "cohere", "cohere2", "ctrl",
    "deberta", "deberta-v2", "distilbert", "electra", "ernie", "ernie4_5",
    "ernie4_5_moe", "falcon", "falcon_mamba", "flaubert", "fnet", "funnel", "gemma", "gemma2",
    "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo",
    "gpt_neox_japanese", "internvl", "jetmoe", "led", "lfm2", "lfm2_moe", "longformer", "longt5",
    "m2m_100", "mamba", "marian", "mbart", "minicpm3", "mistral3", "mobilebert", "modernbert",
    "modernbert-decoder", "mpnet", "mpt", "mt5", "mvp", "nllb-moe", "openai-gpt", "opt",
    "paligemma", "pegasus", "pegasus_x", "plbart", "prophetnet", "recurrent_gemma", 
    "roberta", "roberta-prelayernorm", "roformer", "smollm3", "starcoder2", "switch_transformers",
    "t5", "t5gemma", "umt5", "whisper", "xglm", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet",
    "zamba", "zamba2",
))  # fmt: skip
"""Model types of transformers whose configs tie the two unless they say otherwise."""


def ties_embeddings(config: Mapping[str, Any]) -> bool:
    """True where the head is the token embedding, by a config or by its architecture's default."""
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else {}
    for part in (config, text):
        if "tie_word_embeddings" in part:
            return bool(part["tie_word_embeddings"])
    return config.get("model_type") in TIED_BY_DEFAULT
