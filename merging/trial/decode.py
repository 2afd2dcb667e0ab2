"""Greedy decoding of many prompts at once, with the model's own chat template."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from merging.errors import BadCheckpoint


def as_chat(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return the text a model reads for one user message; the bare prompt if it has no template.

    Raises:
        BadCheckpoint: its template cannot be applied.
    """
    if not tokenizer.chat_template:
        return prompt
    chat = [{"role": "user", "content": prompt}]
    try:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever the template's own code raises
        reason = str(error).strip().partition("\n")[0]
        raise BadCheckpoint(
            f"{Path(tokenizer.name_or_path).name}: its chat template cannot be applied ({reason}); "
            "correct chat_template in its tokenizer_config.json or chat_template.jinja"
        ) from None
    return str(text)


@torch.inference_mode()
def greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch: int = 256,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Answer each prompt greedily; special tokens are left out of the answers.

    Args:
        prompts: user messages, each a conversation of its own.
        max_new_tokens: where an answer is cut off.
        batch: prompts per forward pass; they are sorted by length first, so little is padding.
        progress: called after each batch with how many of its prompts are done.
    """
    texts = [as_chat(tokenizer, prompt) for prompt in prompts]
    has_template = bool(tokenizer.chat_template)
    encoded = tokenizer(texts, add_special_tokens=not has_template)["input_ids"]
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    answers = [""] * len(encoded)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        tokens, mask = _pad_left([encoded[index] for index in chosen], _padding_id(tokenizer))
        generate: Any = model.generate  # transformers' own types deny that it can be called
        output = generate(
            input_ids=tokens.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            pad_token_id=_padding_id(tokenizer),
            # a checkpoint's sampling settings would only make transformers warn here
            temperature=None,
            top_p=None,
            top_k=None,
        )
        new = tokenizer.batch_decode(output[:, tokens.shape[1] :], skip_special_tokens=True)
        for index, answer in zip(chosen, new, strict=True):
            answers[index] = answer
        if progress is not None:
            progress(len(chosen))
    return answers


def _padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    return 0


def _pad_left(rows: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and mask, both (len(rows), longest) int64; the padding is on the left."""
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), padding)
    mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    for index, row in enumerate(rows):
        if row:
            tokens[index, -len(row) :] = torch.tensor(row)
            mask[index, -len(row) :] = 1
    return tokens, mask
