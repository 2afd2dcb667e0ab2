"""The training loop for tiny models: AdamW, warm-up and cosine, loss on the answers only."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from merging.demo.corpus import Example, Mixture, stream

IGNORED = -100
_WARM_UP_STEPS = 30


@dataclass(frozen=True)
class Stage:
    """One run of the optimiser over one mixture.

    Args:
        steps: optimiser steps.
        learning_rate: peak; reached after a short warm-up, then falls to a hundredth by cosine.
        mixture: what is read.
        batch: examples per step.
        weight_decay: AdamW's.
    """

    steps: int
    learning_rate: float
    mixture: Mixture
    batch: int = 64
    weight_decay: float = 0.0


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    *,
    domain: str | None,
    rng: random.Random,
    progress: Callable[[float], None] | None = None,
) -> float:
    """Train a model in place and return the mean loss (nats per token) of the last 20 steps.

    Args:
        domain: the expert's domain, None for the base.
        rng: the only source of chance (the model has no dropout).
        progress: called after every step with the share done, 0..1.
    """
    examples = stream(stage.mixture, domain, rng)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=stage.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=stage.weight_decay,
    )
    warm_up = min(_WARM_UP_STEPS, stage.steps // 5)
    model.train()
    losses: list[float] = []
    for step in range(stage.steps):
        for group in optimiser.param_groups:
            group["lr"] = stage.learning_rate * schedule(step, stage.steps, warm_up)
        tokens, labels = make_batch(examples, tokenizer, stage.batch)
        loss = answer_loss(model, tokens, labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        if progress is not None:
            progress((step + 1) / stage.steps)
    model.eval()
    tail = losses[-20:]
    return sum(tail) / max(len(tail), 1)


def schedule(step: int, steps: int, warm_up: int) -> float:
    """Return the learning rate at a step as a share of its peak: linear up, cosine down to 0.01."""
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(steps - warm_up, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def make_batch(
    examples: Iterator[Example], tokenizer: PreTrainedTokenizerFast, size: int
) -> tuple[Tensor, Tensor]:
    """Take `size` examples and pad them on the right.

    Returns:
        tokens: (size, length) int64. Padding needs no mask: attention is causal.
        labels: (size, length) int64, the token after each position; IGNORED off the answer.
    """
    chosen = list(islice(examples, size))
    prompts = tokenizer([example.prompt for example in chosen])["input_ids"]
    answers = tokenizer([example.answer for example in chosen])["input_ids"]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True)) - 1
    tokens = torch.full((size, length), tokenizer.pad_token_id)
    labels = torch.full((size, length), IGNORED)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        text = torch.tensor(prompt + answer)
        tokens[row, : len(text) - 1] = text[:-1]
        labels[row, len(prompt) - 1 : len(text) - 1] = text[len(prompt) :]
    return tokens, labels


def answer_loss(model: PreTrainedModel, tokens: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy (nats) over the answers' tokens; a scalar.

    The output layer sees the answers' positions only, which saves a third of the time.
    """
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    answers = labels != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[answers]), labels[answers])
