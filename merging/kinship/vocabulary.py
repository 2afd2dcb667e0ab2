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
from merging.errors import BadFile
from merging.system.documents import read_bytes, read_object

LARGEST = 80_000_000  # bytes of a tokenizer's file; that of Gemma 3 has 33 million
_MOST = 500_000  # tokens
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
_SOURCES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
_ADDED_TOKENS = "added_tokens.json"
_FILES = (*_SOURCES, _ADDED_TOKENS, *_SETTINGS)
_TOO_MANY = f"more than {_MOST:,} tokens"
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
# patterns that never go back, so that no text takes more than one pass and little memory
_TEXT = rb'"((?:[^"\\]++|\\.){0,5000}+)"'
_ENTRY = re.compile(rb"\s*" + _TEXT + rb"\s*:\s*(\d{1,9})\s*([,}])", re.S)  # of {"token": id}
_PIECE = re.compile(rb"\s*\[\s*" + _TEXT + rb"\s*,[^\[\]\"]{0,40}\]\s*([,\]])", re.S)
_ADDED = re.compile(rb'\s*\{((?:[^{}"]++|' + _TEXT + rb"){0,200}+)\}\s*([,\]])", re.S)
_ID = re.compile(rb'"id"\s*:\s*(\d{1,9})')
_CONTENT = re.compile(rb'"content"\s*:\s*' + _TEXT, re.S)


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer's files say of its tokens.

    Attributes:
        tokens: id -> token; empty where no file tells.
        problem: why the tokens could not be read; "" where they were, or where there are none.
    """

    tokens: dict[int, str] = field(repr=False)
    problem: str = ""

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """token -> id."""
        return {token: index for index, token in self.tokens.items()}


def read(folder: Path) -> Vocabulary:
    """The vocabulary of the tokenizer that lies in a folder."""
    return _read(folder, tuple(stamp(folder / name) for name in _FILES))


@functools.lru_cache(maxsize=2)  # a large one takes 50 MB
def _read(folder: Path, stamps: tuple[Stamp | None, ...]) -> Vocabulary:
    said = settings(folder)
    if said.problem:
        return Vocabulary({}, said.problem)
    try:
        tokens = dict(_tokens(folder))
        for token, index in _object(folder / _ADDED_TOKENS).items():
            if isinstance(index, int):
                tokens[index] = token
    except BadFile as error:
        return Vocabulary({}, str(error))
    except (ValueError, IndexError) as error:
        return Vocabulary({}, f"{folder}: its tokenizer cannot be read ({error})")
    return Vocabulary(tokens | said.added)


@dataclass(frozen=True)
class Settings:
    """What tokenizer_config.json says.

    Attributes:
        specials: "eos_token" and the like -> token.
        added: id -> token, of those that were added.
        chat_template: as it stands there: a text, a list of named ones, or None.
        problem: why it could not be read; "" where it was, or where there is none.
    """

    specials: dict[str, str]
    added: dict[int, str] = field(repr=False)
    chat_template: Any = field(repr=False)
    problem: str = ""


def settings(folder: Path) -> Settings:
    """The settings of the tokenizer that lies in a folder."""
    return _settings(folder, tuple(stamp(folder / name) for name in _SETTINGS))


@functools.lru_cache(maxsize=16)
def _settings(folder: Path, stamps: tuple[Stamp | None, ...]) -> Settings:
    own: dict[str, Any] = {}
    mapped: dict[str, Any] = {}
    problem = ""
    try:
        own = _object(folder / _SETTINGS[0])
        mapped = _object(folder / _SETTINGS[1])
    except BadFile as error:
        problem = str(error)
    specials = {key: _content(own.get(key, mapped.get(key))) for key in _SPECIAL}
    decoder = own.get("added_tokens_decoder")
    added = {
        int(index): _content(entry)
        for index, entry in (decoder if isinstance(decoder, dict) else {}).items()
        if index.isdecimal() and len(index) < 10
    }
    return Settings(
        {key: token for key, token in specials.items() if token is not None},
        {index: token for index, token in added.items() if token is not None},
        own.get("chat_template"),
        problem,
    )


def _content(token: Any) -> str | None:
    """A token as settings give it: its text, or an object that holds it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def has_tokens(folder: Path) -> bool:
    """True where a file of a folder holds a tokenizer's tokens."""
    return _source(folder) is not None


def same_files(first: Path, second: Path) -> bool:
    """True where two folders hold the same tokenizer, byte for byte: nothing to compare."""
    name = _source(first)
    return (
        name is not None
        and name == _source(second)
        and settings(first).added == settings(second).added
        and _same_bytes(first / _ADDED_TOKENS, second / _ADDED_TOKENS)
        and _same_bytes(first / name, second / name)
    )


def _same_bytes(first: Path, second: Path) -> bool:
    return _same_files((first, stamp(first)), (second, stamp(second)))


@functools.lru_cache(maxsize=64)
def _same_files(first: tuple[Path, Stamp | None], second: tuple[Path, Stamp | None]) -> bool:
    if first[1] is None or second[1] is None:
        return first[1] is second[1]
    try:
        return read_bytes(first[0], LARGEST) == read_bytes(second[0], LARGEST)
    except BadFile:
        return False


def _object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _source(folder: Path) -> str | None:
    """The file that holds the tokens."""
    return next((name for name in _SOURCES if (folder / name).exists()), None)


def _tokens(folder: Path) -> Iterator[tuple[int, str]]:
    name = _source(folder)
    data = read_bytes(folder / name, LARGEST) if name else b""
    match name:
        case "tokenizer.json":
            yield from _of_tokenizers(data)
        case "vocab.json":
            yield from _entries(data, 0)
        case "vocab.txt":
            yield from enumerate(_words(data))
        case str():
            yield from enumerate(_pieces(data))


def _words(data: bytes) -> Iterator[str]:
    """The lines of a vocab.txt."""
    if data.count(b"\n") > _MOST:
        raise ValueError(_TOO_MANY)
    for line in data.decode("utf-8", "replace").removesuffix("\n").split("\n"):
        yield line.rstrip("\r")


def _of_tokenizers(data: bytes) -> Iterator[tuple[int, str]]:
    """(id, token) of a tokenizer.json, added tokens last."""
    if key := re.search(rb'"vocab"\s*:\s*\{', data):
        yield from _entries(data, key.end() - 1)
    elif key := re.search(rb'"vocab"\s*:\s*\[', data):
        for index, match in enumerate(_run(_PIECE, data, key.end(), b"]")):
            yield index, _text(match[1])
    if key := re.search(rb'"added_tokens"\s*:\s*\[', data):
        for match in _run(_ADDED, data, key.end(), b"]"):
            number, content = _ID.search(match[1]), _CONTENT.search(match[1])
            if number and content:
                yield int(number[1]), _text(content[1])


def _entries(data: bytes, start: int) -> Iterator[tuple[int, str]]:
    """(id, token) of the object {"token": id} that begins at or after `start`."""
    opening = data.find(b"{", start)
    for match in _run(_ENTRY, data, opening + 1, b"}") if opening >= 0 else ():
        yield int(match[2]), _text(match[1])


def _run(pattern: re.Pattern[bytes], data: bytes, start: int, closing: bytes) -> Iterator[re.Match]:
    """Matches that follow each other until one ends with the closing bracket. Raises ValueError
    where something else stands there, or too many."""
    if data[start : start + 100].lstrip().startswith(closing):
        return
    for _ in range(_MOST):
        match = pattern.match(data, start)
        if match is None:
            raise ValueError(f"byte {start}")
        yield match
        if match[match.re.groups] == closing:
            return
        start = match.end()
    raise ValueError(_TOO_MANY)


def _text(quoted: bytes) -> str:
    if b"\\" in quoted:
        return json.loads(b'"' + quoted + b'"')
    return quoted.decode("utf-8", "replace")


def _pieces(data: bytes) -> Iterator[str]:
    """The pieces of a sentencepiece model: field 1 of its messages, each with its text first."""
    for number, value in _fields(data, _MOST):
        if number == 1:
            text = next((text for inner, text in _fields(value, 8) if inner == 1), b"")
            yield text.decode("utf-8", "replace")


def _fields(data: bytes, most: int) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of a protobuf message's length-delimited fields; others are passed over.
    Raises ValueError where it is no such message, or has more than `most` fields."""
    at = count = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        count += 1
        if count > most or not tag >> 3:
            raise ValueError("not a sentencepiece model")
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
