"""Answers' likelihoods: logits where answers are, and sums that padding does not change."""

from __future__ import annotations

import pytest
import torch

from merging.demo.build import Curriculum, new_model
from merging.demo.tokenizer import build_tokenizer
from merging.trial.likelihood import IGNORED, answer_logits, log_likelihoods, padded
from merging.trial.model import Model
from merging.trial.tokenizer import Tokenizer

ROWS = [([7, 8], [9, 1]), ([7], [4]), ([5, 6, 7, 8, 9, 10], [3, 2, 1])]


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = build_tokenizer()
    network = new_model(Curriculum(hidden=32, layers=2, heads=2, intermediate=32), tokenizer, 1)
    return Model(network.eval(), Tokenizer(tokenizer), "tiny")


def test_labels_stand_on_the_answers_alone() -> None:
    tokens, labels = padded(ROWS[:2])
    assert tokens.tolist() == [[7, 8, 9], [7, 0, 0]]
    assert labels.tolist() == [[-100, 9, 1], [4, -100, -100]]


def test_the_heads_logits_are_those_of_the_whole_model(model: Model) -> None:
    tokens, labels = padded(ROWS)
    shapes = []
    hook = model.network.lm_head.register_forward_hook(lambda *a: shapes.append(a[2].shape[:2]))
    with torch.no_grad():
        few = answer_logits(model.network, tokens, labels)
        hook.remove()
        whole = model.network(tokens).logits[labels != IGNORED]
    assert torch.allclose(few, whole, atol=1e-5)
    assert shapes == [(1, 6)], "of 24 places the head saw the 6 before an answer's token"


def test_log_likelihoods_are_sums_over_the_answers_tokens(model: Model) -> None:
    expected = []
    for prompt, answer in ROWS:
        with torch.no_grad():
            scores = model.network(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        expected.append(sum(float(scores[p, t]) for p, t in zip(places, answer, strict=True)))
    counts: list[int] = []
    assert log_likelihoods(model, ROWS, counts.append) == pytest.approx(expected, abs=1e-4)
    assert sum(counts) == 3
