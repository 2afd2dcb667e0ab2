"""How likely a model finds given answers; logits are computed where answers are, nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from merging.trial.memory import batch_bytes, token_bytes
from merging.trial.model import Model

Row = tuple[list[int], list[int]]
"""The tokens of a prompt and of its answer."""

IGNORED = -100


def padded(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens padded on the right (attention is causal, so nothing sees it), and the token after
    each position, IGNORED off the answers; both (len(rows), longest) int64."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, (prompt, answer) in enumerate(rows):
        text = torch.tensor(prompt + answer)
        tokens[index, : len(text) - 1] = text[:-1]
        labels[index, len(prompt) - 1 : len(text) - 1] = text[len(prompt) :]
    return tokens, labels


def answer_logits(network: Any, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A model's logits before each answer's tokens, in the order of `labels[labels != IGNORED]`.

    The output head is given those positions alone: with a large vocabulary it takes most memory.

    Args:
        tokens, labels: as `padded`, on the model's device.

    Returns:
        (answer tokens, vocabulary), in the model's type.
    """
    labelled = labels != IGNORED

    def select(_: Any, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        hidden, *others = arguments
        if hidden.shape[:2] != labelled.shape:
            return None
        return (hidden[labelled.to(hidden.device)].unsqueeze(0), *others)

    head = network.get_output_embeddings()
    hook = head.register_forward_pre_hook(select) if head is not None else None
    try:
        logits = network(input_ids=tokens, use_cache=False).logits
    finally:
        if hook is not None:
            hook.remove()
    if logits.shape[:2] == labelled.shape:
        return logits[labelled.to(logits.device)]
    return logits[0]


@torch.inference_mode()
def log_likelihoods(
    model: Model, rows: Sequence[Row], advance: Callable[[int], None] | None = None
) -> list[float]:
    """The log-probability of each row's answer after its prompt: the sum over its tokens, nats.

    Args:
        advance: called after each batch with its number of rows; what it raises ends the work.
    """
    totals = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]) + len(rows[index][1]))
    for batch in _batches(model, rows, order):
        tokens, labels = (t.to(model.device) for t in padded([rows[i] for i in batch]))
        logits = answer_logits(model.network, tokens, labels)
        targets = labels[labels != IGNORED].to(logits.device)
        scores = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        places = (labels != IGNORED).nonzero()[:, 0].tolist()
        for place, score in zip(places, scores.tolist(), strict=True):
            totals[batch[place]] -= score
        if advance is not None:
            advance(len(batch))
    return totals


def _batches(model: Model, rows: Sequence[Row], order: Sequence[int]) -> Iterator[list[int]]:
    """Rows of similar length, as many at a time as memory allows."""
    most, each = batch_bytes(model.device), token_bytes(model.network)
    batch: list[int] = []
    for index in order:
        prompt, answer = rows[index]
        need = (len(prompt) + len(answer)) * each + len(answer) * model.rows * 12
        if batch and (len(batch) + 1) * need > most:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
