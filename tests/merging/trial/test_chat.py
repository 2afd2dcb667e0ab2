"""Streaming one model: the tokens of `generate`, stopped on request, and errors in one line."""

from __future__ import annotations

import re
import shutil
import threading
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from merging.errors import BadCheckpoint, ModelNotFound
from merging.trial.chat import ChatModel, PromptError, Sampling
from tests.chat_models import make_chat_model

QUESTION = [{"role": "user", "content": "What is 37 + 45?"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat_model(tmp_path_factory.mktemp("chat") / "tiny")


@pytest.fixture(scope="module")
def chat(folder: Path) -> ChatModel:
    return ChatModel.load(folder, "cpu")


def generated(chat: ChatModel, n: int) -> str:
    tokens = chat.encode(QUESTION)
    output = chat.model.network.generate(
        tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=n
    )
    return chat.model.language.texts([output[0, tokens.shape[1] :].tolist()])[0]


def last(chat: ChatModel, sampling: Sampling | None = None, **options: object):
    return list(chat.stream(QUESTION, sampling, **options))[-1]


def test_greedy_stream_is_what_generate_gives(chat: ChatModel) -> None:
    assert last(chat, Sampling(max_new_tokens=48)).text == generated(chat, 48)


def test_repetition_penalty_of_the_checkpoint_is_honoured(tmp_path: Path) -> None:
    chat = ChatModel.load(
        make_chat_model(tmp_path / "penalty", generation={"repetition_penalty": 1.3}), "cpu"
    )
    assert last(chat, Sampling(max_new_tokens=32)).text == generated(chat, 32)


def test_text_only_grows_and_ends_with_a_reason(chat: ChatModel) -> None:
    chunks = list(chat.stream(QUESTION, Sampling(max_new_tokens=20), every_s=0.0))
    assert all(b.text.startswith(a.text) for a, b in pairwise(chunks))
    assert [c.finish for c in chunks[:-1]] == [""] * (len(chunks) - 1)
    assert chunks[-1].finish in ("end", "length")
    assert chunks[-1].tokens <= 20


def test_end_token_ends_the_answer(tmp_path: Path, chat: ChatModel) -> None:
    full = chat.encode(QUESTION)
    with torch.inference_mode():
        first = int(chat.model.network(full).logits[0, -1].argmax())
    folder = make_chat_model(tmp_path / "ended", generation={"eos_token_id": [first]})
    ended = ChatModel.load(folder, "cpu")
    chunk = last(ended)
    assert (chunk.text, chunk.tokens, chunk.finish) == ("", 0, "end")


def test_stop_ends_before_the_next_token(chat: ChatModel) -> None:
    stop = threading.Event()
    chunks = []
    for chunk in chat.stream(QUESTION, Sampling(max_new_tokens=90), stop=stop, every_s=0.0):
        chunks.append(chunk)
        stop.set()
    assert chunks[-1].finish == "stopped"
    assert chunks[-1].tokens <= 2


def test_same_seed_same_answer_other_seed_another(chat: ChatModel) -> None:
    def draw(seed: int) -> str:
        return last(chat, Sampling(40, temperature=1.5, top_p=0.95, seed=seed)).text

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_answer_is_cut_at_the_context(chat: ChatModel) -> None:
    chunk = last(chat, Sampling(max_new_tokens=10_000))
    assert chunk.tokens + chat.encode(QUESTION).shape[1] <= chat.context


@pytest.mark.parametrize("text", ["", "  \n "])
def test_empty_prompt_is_refused(chat: ChatModel, text: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        next(chat.stream([{"role": "user", "content": text}]))


@pytest.mark.parametrize(
    ("before", "mend"),
    [
        ([], "shorten it"),
        ([*QUESTION, {"role": "assistant", "content": "82"}], "shorten it or clear"),
    ],
)
def test_long_prompt_names_both_lengths(chat: ChatModel, before: list, mend: str) -> None:
    with pytest.raises(PromptError) as caught:
        chat.encode([*before, {"role": "user", "content": "7" * 500}])
    message = str(caught.value)
    assert re.search(
        rf"has \d+ tokens, this model reads at most {chat.context - 1}; {mend}", message
    )
    assert ("conversation" in message) is bool(before)


def test_without_template_the_prompt_is_completed(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "chat_template.jinja").unlink()
    chat = ChatModel.load(bare, "cpu")
    assert not chat.has_template
    (text,) = chat.model.language.texts(chat.encode(QUESTION).tolist())
    assert text == QUESTION[-1]["content"]
    assert last(chat, Sampling(5)).tokens <= 5


def test_missing_tokenizer_is_one_line(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (broken / name).unlink()
    with pytest.raises(BadCheckpoint) as caught:
        ChatModel.load(broken, "cpu")
    assert "\n" not in str(caught.value)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        ChatModel.load(tmp_path / "nothing")
