"""Tokens by id, from the files of any kind of tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from merging import demo
from merging.kinship.vocabulary import read, settings

SPECIAL = {"id": 3, "content": '<|{"x"}|>', "special": True}
MODELS = {
    "words": {"type": "WordLevel", "vocab": {"a": 0, 'q"\\u00e9': 1, "vocab": 2}, "unk_token": "a"},
    "pieces": {"type": "Unigram", "vocab": [["a", 0.0], ['q"\\u00e9', -1.5], ["vocab", -2e-5]]},
}
EXPECTED = {0: "a", 1: 'q"\\u00e9', 2: "vocab", 3: '<|{"x"}|>'}


@pytest.mark.parametrize("kind", sorted(MODELS))
@pytest.mark.parametrize("indent", [None, 2])
def test_tokenizer_json_is_read_as_it_is_written(kind: str, indent, tmp_path) -> None:
    document = {"added_tokens": [SPECIAL], "model": MODELS[kind]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(document, indent=indent))
    assert read(tmp_path).tokens == EXPECTED
    assert read(tmp_path).ids["vocab"] == 2


def test_the_built_in_tokenizer_is_read_whole() -> None:
    folder = demo.folder("base")
    document = json.loads((folder / "tokenizer.json").read_text())
    tokens = {index: token for token, index in document["model"]["vocab"].items()}
    tokens |= {one["id"]: one["content"] for one in document["added_tokens"]}
    vocabulary = read(folder)
    assert vocabulary.tokens == tokens
    assert settings(folder).specials["eos_token"] == "<|end|>"


def test_older_files_are_read_where_there_is_no_tokenizer_json(tmp_path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "added_tokens.json").write_text('{"<x>": 2}')
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<x>"}}')
    assert read(tmp_path).tokens == {0: "a", 1: "b", 2: "<x>"}
    assert settings(tmp_path).specials == {"eos_token": "<x>"}
    words = tmp_path / "words"
    words.mkdir()
    (words / "vocab.txt").write_text("[PAD]\nhello\n##s\n")
    assert read(words).tokens == {0: "[PAD]", 1: "hello", 2: "##s"}


def test_a_sentencepiece_model_is_read(tmp_path) -> None:
    def piece(text: str) -> bytes:
        inner = b"\x0a" + bytes([len(text.encode())]) + text.encode() + b"\x15\x00\x00\x80\xbf"
        return b"\x0a" + bytes([len(inner)]) + inner

    (tmp_path / "tokenizer.model").write_bytes(b"".join(map(piece, ["<unk>", "▁the", "x"])))
    assert read(tmp_path).tokens == {0: "<unk>", 1: "▁the", 2: "x"}


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[" * 9, b'{"model": {"vocab": {"a": ', b'{"vocab": {"a": "b"}}', b"\xff\xfe"],
)
def test_what_is_no_tokenizer_has_no_tokens(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(data)
    (tmp_path / "tokenizer.model").write_bytes(data)
    assert read(tmp_path).tokens == {}


@pytest.mark.parametrize(
    ("file", "data", "why"),
    [
        ("vocab.txt", b"\n" * 600_000, "more than 500,000 tokens"),
        ("tokenizer.model", bytes(600_000), "not a sentencepiece model"),
        ("tokenizer.model", b"\x0a\x03\x0a\x01a" * 600_000, "not a sentencepiece model"),
        ("tokenizer.json", b'{"vocab": {"' + b"\\" * 600_000, "byte 11"),
        ("tokenizer.json", b'{"added_tokens": [{' + b'"a"' * 300_000, "byte 18"),
        ("tokenizer.json", b'{"vocab": {"a": 0, "b": 1.5}}', "byte 18"),
    ],
)
def test_what_is_too_much_or_broken_off_is_told(file: str, data: bytes, why, tmp_path) -> None:
    (tmp_path / file).write_bytes(data)
    vocabulary = read(tmp_path)
    assert (vocabulary.tokens, why in vocabulary.problem) == ({}, True)


def test_an_empty_line_of_a_list_of_words_keeps_its_id(tmp_path) -> None:
    (tmp_path / "vocab.txt").write_text("a\n\nb\n")
    assert read(tmp_path).tokens == {0: "a", 1: "", 2: "b"}


def test_a_broken_settings_file_is_a_problem_in_words(tmp_path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("[1")
    assert "tokenizer_config.json" in read(tmp_path).problem
