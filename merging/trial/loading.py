"""Loads a model folder with its tokenizer; what cannot be loaded is said in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from merging.errors import BadCheckpoint

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.*", "spiece.model", "*.tiktoken")


def load(
    folder: Path, dtype: torch.dtype | str = "auto"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Returns the model, on the CPU and ready to answer, and its tokenizer.

    Nothing is downloaded, and no code of the folder is run.

    Args:
        dtype: type of the parameters; "auto" for the stored one.

    Raises:
        BadCheckpoint: transformers does not know the model, or a file is missing or damaged.
    """
    folder = Path(folder)
    if not any(any(folder.glob(pattern)) for pattern in _TOKENIZERS):
        raise BadCheckpoint(
            f"{folder.name}: no tokenizer in its folder; copy tokenizer.json and "
            "tokenizer_config.json there from the model it was made from"
        )
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, **options
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what the two raise for a folder they cannot read has no base
        reason = str(error).strip().partition("\n")[0]
        raise BadCheckpoint(f"{folder.name}: cannot be loaded: {reason}") from None
    return model.eval(), tokenizer
