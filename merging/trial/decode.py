"""Greedy decoding of many prompts at once, with the model's own chat template."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from merging.trial.model import Model


@torch.inference_mode()
def greedy(
    model: Model,
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

    Raises:
        PromptError: as `Model.read`.
    """
    encoded = model.read([[{"role": "user", "content": prompt}] for prompt in prompts])
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    answers = [""] * len(encoded)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        tokens, mask = _pad_left([encoded[index] for index in chosen], model.padding)
        generate: Any = model.network.generate  # transformers' own types deny that it can be called
        output = generate(
            input_ids=tokens.to(model.network.device),
            attention_mask=mask.to(model.network.device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(model.ends) or None,
            pad_token_id=model.padding,
            # a checkpoint's sampling settings would only make transformers warn here
            temperature=None,
            top_p=None,
            top_k=None,
        )
        new = model.language.texts(output[:, tokens.shape[1] :].tolist())
        for index, answer in zip(chosen, new, strict=True):
            answers[index] = answer
        if progress is not None:
            progress(len(chosen))
    return answers


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
