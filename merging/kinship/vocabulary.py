"""A tokenizer's tokens by id, read from its files as data, in bounded time and memory.

Only what says which id means which token is read: of tokenizer.json the vocabulary and the added
tokens, picked out of the text without building the rest (merges of a large tokenizer are a million
values). Where that file is absent: vocab.json, vocab.txt or a sentencepiece tokenizer.model.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.checkpoints.stamp import Stamp, stamp
from merging.documents import read_bytes, read_object
from merging.errors import BadFile

LARGEST = 80_000_000  # bytes of a tokenizer's file; that of Gemma 3 has 33 million
_MOST = 2_000_000  # tokens
_SETTINGS = "tokenizer_config.json"
_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model",
          "added_tokens.json", _SETTINGS, "special_tokens_map.json")  # fmt: skip
_TEXT = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
_ENTRY = re.compile(rb"\s*" + _TEXT + rb"\s*:\s*(\d{1,9})\s*([,}])", re.S)  # of {"token": id}
_PIECE = re.compile(rb"\s*\[\s*" + _TEXT + rb"\s*,[^\[\]\"]{0,40}\]\s*([,\]])", re.S)
_ADDED = re.compile(rb'\s*\{((?:[^{}"]|' + _TEXT + rb")*)\}\s*([,\]])", re.S)
_ID = re.compile(rb'"id"\s*:\s*(\d{1,9})')
_CONTENT = re.compile(rb'"content"\s*:\s*' + _TEXT, re.S)


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer's files say.

    Attributes:
        tokens: id -> token; empty where no file tells.
        specials: "eos_token" and the like -> token.
        settings: tokenizer_config.json; empty without one.
        problem: why the tokens could not be read; "" where they were, or where there are none.
    """

    tokens: dict[int, str] = field(repr=False)
    specials: dict[str, str]
    settings: dict[str, Any] = field(repr=False)
    problem: str = ""

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """token -> id."""
        return {token: index for index, token in self.tokens.items()}


def read(folder: Path) -> Vocabulary:
    """The vocabulary of the tokenizer that lies in a folder."""
    return _read(folder, tuple(stamp(folder / name) for name in _FILES))


@functools.lru_cache(maxsize=8)
def _read(folder: Path, stamps: tuple[Stamp | None, ...]) -> Vocabulary:
    settings: dict[str, Any] = {}
    tokens: dict[int, str] = {}
    problem = ""
    try:
        settings = _object(folder / _SETTINGS)
        tokens = dict(_tokens(folder))
        for token, index in _object(folder / "added_tokens.json").items():
            if isinstance(index, int):
                tokens[index] = token
        added = settings.get("added_tokens_decoder")
        for index, one in (added if isinstance(added, dict) else {}).items():
            if index.isdigit() and isinstance(one, dict) and isinstance(one.get("content"), str):
                tokens[int(index)] = one["content"]
    except BadFile as error:
        problem = str(error)
    except (ValueError, IndexError) as error:
        problem = f"{folder}: its tokenizer cannot be read ({error})"
    return Vocabulary(tokens, _specials(folder, settings), settings, problem)


def same_files(first: Path, second: Path) -> bool:
    """True where two folders hold the same tokenizer.json, byte for byte: nothing to compare."""
    return _same_files(*((path, stamp(path)) for path in (first / _FILES[0], second / _FILES[0])))


@functools.lru_cache(maxsize=64)
def _same_files(first: tuple[Path, Stamp | None], second: tuple[Path, Stamp | None]) -> bool:
    if first[1] is None or second[1] is None:
        return False
    try:
        return read_bytes(first[0], LARGEST) == read_bytes(second[0], LARGEST)
    except BadFile:
        return False


def _object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _tokens(folder: Path) -> Iterator[tuple[int, str]]:
    if (folder / "tokenizer.json").exists():
        yield from _of_tokenizers(read_bytes(folder / "tokenizer.json", LARGEST))
    elif (folder / "vocab.json").exists():
        yield from _entries(read_bytes(folder / "vocab.json", LARGEST), 0)
    elif (folder / "vocab.txt").exists():
        lines = read_bytes(folder / "vocab.txt", LARGEST).decode("utf-8", "replace").split("\n")
        yield from enumerate(line.rstrip("\r") for line in lines if line)
    else:
        for name in ("tokenizer.model", "spiece.model"):
            if (folder / name).exists():
                yield from enumerate(_pieces(read_bytes(folder / name, LARGEST)))
                return


def _of_tokenizers(data: bytes) -> Iterator[tuple[int, str]]:
    """(id, token) of a tokenizer.json, added tokens last."""
    if found := re.search(rb'"vocab"\s*:\s*\{', data):
        yield from _entries(data, found.end() - 1)
    elif found := re.search(rb'"vocab"\s*:\s*\[', data):
        for index, match in enumerate(_run(_PIECE, data, found.end(), b"]")):
            yield index, _text(match[1])
    if found := re.search(rb'"added_tokens"\s*:\s*\[', data):
        for match in _run(_ADDED, data, found.end(), b"]"):
            number, content = _ID.search(match[1]), _CONTENT.search(match[1])
            if number and content:
                yield int(number[1]), _text(content[1])


def _entries(data: bytes, start: int) -> Iterator[tuple[int, str]]:
    """(id, token) of the object {"token": id} that begins at or after `start`."""
    opening = data.find(b"{", start)
    for match in _run(_ENTRY, data, opening + 1, b"}") if opening >= 0 else ():
        yield int(match[2]), _text(match[1])


def _run(pattern: re.Pattern[bytes], data: bytes, start: int, closing: bytes) -> Iterator[re.Match]:
    """Matches that follow each other until one ends with the closing bracket."""
    for _ in range(_MOST):
        match = pattern.match(data, start)
        if match is None:
            return
        yield match
        if match[match.re.groups] == closing:
            return
        start = match.end()
    raise ValueError(f"more than {_MOST:,} tokens")


def _text(quoted: bytes) -> str:
    if b"\\" in quoted:
        return json.loads(b'"' + quoted + b'"')
    return quoted.decode("utf-8", "replace")


def _pieces(data: bytes) -> Iterator[str]:
    """The pieces of a sentencepiece model: field 1 of its messages, each with its text first."""
    for number, value in _fields(data):
        if number == 1:
            yield next((text for inner, text in _fields(value) if inner == 1), b"").decode(
                "utf-8", "replace"
            )


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of a protobuf message's length-delimited fields; others are passed over."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 2:
            length, at = _varint(data, at)
            if length > len(data) - at:
                raise ValueError("a field is longer than the file")
            yield tag >> 3, data[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("not a sentencepiece model")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("not a sentencepiece model")


def _specials(folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    try:
        mapped = _object(folder / "special_tokens_map.json")
    except BadFile:
        mapped = {}
    found = {}
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = settings.get(key, mapped.get(key))
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[key] = value
    return found
