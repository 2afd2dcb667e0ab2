"""Tokenizers in processes of their own: the same tokens, and bounds that hold."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from merging import demo
from merging.errors import BadCheckpoint, Cancelled, MergeError
from merging.trial.confined import ConfinedTokenizer, Killed
from merging.trial.turns import PromptError
from tests.merging.trial.folders import changed

CHAT = [{"role": "user", "content": "What is 37 + 45?"}]
FOR_EVER = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x"


def test_tokens_and_texts_are_those_of_transformers() -> None:
    folder = demo.folder("add")
    reference = AutoTokenizer.from_pretrained(folder)
    confined = ConfinedTokenizer(folder)
    chats = [
        CHAT,
        [
            *CHAT,
            {"role": "assistant", "content": "82\n"},
            {"role": "user", "content": "<|end|> é🧩"},
        ],
    ]
    expected = [
        reference.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        for chat in chats
    ]
    assert confined.prompts(chats) == expected
    assert confined.texts(expected) == reference.batch_decode(expected, skip_special_tokens=True)
    assert confined.ids(["82", ""]) == reference(["82", ""], add_special_tokens=False)["input_ids"]
    assert confined.end == reference.eos_token_id
    assert confined.token(5) == reference.convert_ids_to_tokens(5)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 'x' * 1000000000 }}", "asks for more memory than it may have"),
        ("{{ 'x' * 5000000 }}", "makes 5,000,000 characters of 16, more than 4,000,000"),
        ("{{ raise_exception('no\nsystem\x07 role') }}", "(no)"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth"),
        ("{% for %}", "Expected an expression"),
    ],
)
def test_a_template_that_fails_is_one_line_and_the_next_call_works(
    template: str, reason: str, tmp_path: Path
) -> None:
    confined = ConfinedTokenizer(changed(tmp_path / "m", template, "chat_template.jinja"))
    for _ in range(2):
        with pytest.raises(PromptError) as caught:
            confined.prompts([CHAT])
        message = str(caught.value)
        assert message.startswith("m: its chat template") and reason in message
        assert message.isprintable() and len(message) < 500
    assert confined.texts(confined.ids(["82"])) == ["82"]


def test_a_template_without_end_is_ended(tmp_path: Path) -> None:
    confined = ConfinedTokenizer(changed(tmp_path / "m", FOR_EVER, "chat_template.jinja"))
    with pytest.raises(PromptError, match=r"m: its chat template .* takes more than 1\.5 s"):
        confined.prompts([CHAT])
    assert confined.texts(confined.ids(["82"])) == ["82"]


def test_a_process_killed_from_outside_is_started_again() -> None:
    confined = ConfinedTokenizer(demo.folder("add"))
    os.kill(confined._process._pid, signal.SIGKILL)
    assert confined.texts(confined.ids(["82"])) == ["82"]


def test_one_that_is_always_killed_is_not_said_to_be_slow() -> None:
    confined = ConfinedTokenizer(demo.folder("add"))
    over, killed = threading.Event(), set()

    def kill() -> None:
        while not over.wait(0.001):
            process = confined._process
            if process is not None and process._pid not in killed:
                os.kill(process._pid, signal.SIGKILL)
                killed.add(process._pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(Killed, match="add: the process of its tokenizer was killed, as"):
            for _ in range(1000):
                confined.ids(["82" * 1000])
    finally:
        over.set()
        killer.join()


def test_stop_ends_a_template_and_those_that_wait_for_it(tmp_path: Path) -> None:
    confined = ConfinedTokenizer(changed(tmp_path / "m", FOR_EVER, "chat_template.jinja"))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        confined.prompts([CHAT], stop)
    assert confined.texts(confined.ids(["82"])) == ["82"]


def test_a_model_that_hangs_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    hanging = ConfinedTokenizer(changed(tmp_path / "m", FOR_EVER, "chat_template.jinja"))
    other = ConfinedTokenizer(demo.folder("sort"))
    stop, ended = threading.Event(), threading.Event()

    def ask() -> None:
        with pytest.raises(Cancelled):
            hanging.prompts([CHAT], stop)
        ended.set()

    threading.Thread(target=ask).start()
    assert other.prompts([CHAT])
    assert not ended.is_set()
    stop.set()
    assert ended.wait(10)


def _grows(document: dict) -> None:
    replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    document["normalizer"] = {"type": "Sequence", "normalizers": [replace] * 6}


def _backtracks(document: dict) -> None:
    pattern = {"Regex": "^(([a-z])+.)+[A-Z]([a-z])+$"}
    document["pre_tokenizer"] = {
        "type": "Split",
        "pattern": pattern,
        "behavior": "Isolated",
        "invert": False,
    }


@pytest.mark.parametrize("edit", [_grows, _backtracks])
def test_a_tokenizer_that_fails_takes_only_its_own_process(edit, tmp_path: Path) -> None:
    confined = ConfinedTokenizer(changed(tmp_path / "m", edit, "tokenizer.json"))
    with pytest.raises(MergeError, match=r"m: its chat template or tokenizer"):
        confined.prompts([[{"role": "user", "content": "a" * 60 + "!"}]])
    assert len(confined.ids(["82"])) == 1


def test_a_tokenizer_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", "[" * 100_000, "tokenizer.json")
    with pytest.raises(BadCheckpoint, match="m: its tokenizer cannot be read"):
        ConfinedTokenizer(folder)
