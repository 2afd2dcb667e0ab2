"""Greedy decoding of many prompts at once, with the model's own chat template."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from merging.trial.memory import batch_bytes, token_bytes
from merging.trial.model import Model
from merging.trial.tokenizer import Ids

BATCH = 256


def greedy(
    model: Model,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch: int = BATCH,
    progress: Callable[[float], None] | None = None,
) -> list[str]:
    """Answer each prompt greedily; special tokens are left out of the answers.

    Args:
        prompts: user messages, each a conversation of its own.
        max_new_tokens: where an answer is cut off; it is cut at the model's context, too.
        batch: prompts per forward pass at most, fewer where memory is short; they are sorted by
            length first, so little is padding.
        progress: called after each token with the share of all work that is done, 0..1; what it
            raises ends the decoding.

    Raises:
        PromptError: as `Model.read`.
    """
    rows = model.read([[{"role": "user", "content": prompt}] for prompt in prompts])
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    answers = [""] * len(rows)
    start = 0
    while start < len(order):
        chosen = order[start : start + _fitting(model, rows, order[start:], max_new_tokens, batch)]
        done, share = start / len(order), len(chosen) / len(order)
        steps = min(max_new_tokens, model.context - len(rows[chosen[-1]]))
        step = _Step(steps, progress, done, share)
        new = _generated(model, [rows[index] for index in chosen], steps, step)
        for index, answer in zip(chosen, model.language.texts(new), strict=True):
            answers[index] = answer
        start += len(chosen)
        if progress is not None:
            progress(done + share)
    return answers


def _fitting(model: Model, rows: Sequence[Ids], order: Sequence[int], new: int, most: int) -> int:
    """How many of the next prompts, by growing length, memory holds at a time; one at least."""
    room = batch_bytes(model.device) // token_bytes(model.network)
    count = 1
    while count < min(most, len(order)) and (count + 1) * (len(rows[order[count]]) + new) <= room:
        count += 1
    return count


@torch.inference_mode()
def _generated(model: Model, rows: Sequence[Ids], steps: int, step: "_Step") -> list[list[int]]:
    """The tokens that follow each row, with what fills up the shorter ones."""
    tokens, mask = _pad_left(rows, model.padding)
    generate: Any = model.network.generate  # transformers' own types deny that it can be called
    device = model.device
    output = generate(
        input_ids=tokens.to(device),
        attention_mask=mask.to(device),
        do_sample=False,
        num_beams=1,
        max_new_tokens=steps,
        eos_token_id=sorted(model.ends) or None,
        pad_token_id=model.padding,
        stopping_criteria=StoppingCriteriaList([step]),
        # a checkpoint's sampling settings would only make transformers warn here
        temperature=None,
        top_p=None,
        top_k=None,
    )
    return output[:, tokens.shape[1] :].tolist()


class _Step(StoppingCriteria):
    """Tells after each token how far the decoding is; stops nothing by itself."""

    def __init__(
        self, steps: int, progress: Callable[[float], None] | None, done: float, share: float
    ) -> None:
        self._steps, self._progress = steps, progress
        self._done, self._share, self._count = done, share, 0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        self._count += 1
        if self._progress is not None:
            self._progress(self._done + self._share * min(1.0, self._count / self._steps))
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


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
