"""Model folders that nobody should have: each is refused in a line, or merged into a sound model.

`python -m tests.mutated_folders --count 400` changes a sound folder in as many ways, from a seed,
and runs `check`, `inspect` and `merge` on each in a process that is watched. It prints whatever
ended in a traceback, took over 5 s or over 500 MB, said more than a line, or left something behind.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).parents[1]
MOST_SECONDS, MOST_BYTES, MOST_CHARACTERS = 5.0, 500_000_000, 500
_PATIENCE_S = 100.0  # for an answer on a busy machine: after that the process hangs
_ADDRESSES = 6 << 30  # bytes that a watched process may map
COMMANDS = ("check", "inspect", "merge", "list")
SINGLE, FIRST, SECOND = (
    "model.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
)
INDEX = "model.safetensors.index.json"
SIDE, LAYERS = 16, 2


@dataclass(frozen=True)
class Mutation:
    """One folder to try: `change` is given a sound one.

    Attributes:
        shards: whether the folder has two files and an index.
    """

    name: str
    change: Callable[[Path], object]
    shards: bool = False


@dataclass(frozen=True)
class Outcome:
    """What one command did with one folder.

    Attributes:
        status: None where it ended in an exception.
        seconds: of the processor, which other programs do not lengthen.
        remains: what lies where the result should, and is none.
    """

    command: str
    status: int | None
    err: str
    seconds: float
    peak_bytes: int
    remains: tuple[str, ...] = ()

    @property
    def faults(self) -> list[str]:
        """What must not happen, in words."""
        lines = self.err.splitlines()
        faults_of = {
            f"status {self.status}": self.status not in (0, 2),
            "a traceback": "Traceback" in self.err,
            "no word of why": self.status == 2 and not lines and self.command != "check",
            "lines": sum(line.startswith("error:") for line in lines) > 1,
            "a line too long": any(len(line) > MOST_CHARACTERS + 20 for line in lines),
            "a control character": not all(line.isprintable() for line in lines),
            f"{self.seconds:.1f} s": self.seconds > MOST_SECONDS,
            f"{self.peak_bytes / 1e6:.0f} MB": self.peak_bytes > MOST_BYTES,
            f"left {', '.join(self.remains)}": bool(self.remains),
        }
        return [fault for fault, is_there in faults_of.items() if is_there]


# the family


def write_family(parent: Path) -> None:
    """Writes base and two experts, whole and as "sharded", with tokenizer; needs no torch."""
    numbers = np.random.default_rng(0)
    demo = ROOT / "assets" / "demo" / "base"
    vocab = len(json.loads((demo / "tokenizer.json").read_text())["model"]["vocab"])
    shapes = {"model.embed_tokens": (vocab, SIDE), "model.norm": (SIDE,), "lm_head": (vocab, SIDE)}
    for layer in range(LAYERS):
        for linear in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
            shapes[f"model.layers.{layer}.{linear}"] = (SIDE, SIDE)
        shapes[f"model.layers.{layer}.input_layernorm"] = (SIDE,)
    base = {f"{n}.weight": numbers.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    config = json.loads((demo / "config.json").read_text()) | {
        "hidden_size": SIDE,
        "intermediate_size": SIDE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": vocab,
    }
    for name in ("base", "expert0", "expert1", "sharded"):
        folder = parent / name
        folder.mkdir(parents=True)
        for file in demo.iterdir():
            if file.suffix in (".json", ".jinja"):
                shutil.copyfile(file, folder / file.name)
        (folder / "config.json").write_text(json.dumps(config))
        change = 0.0 if name == "base" else 1e-3
        tensors = {
            key: one + change * numbers.normal(size=one.shape).astype(np.float32)
            for key, one in base.items()
        }
        if name != "sharded":
            save_file(tensors, folder / SINGLE)
            continue
        halves = {FIRST: sorted(tensors)[:5], SECOND: sorted(tensors)[5:]}
        for file_name, names in halves.items():
            save_file({key: tensors[key] for key in names}, folder / file_name)
        weight_map = {key: file_name for file_name, names in halves.items() for key in names}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


# values and texts of JSON

_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2.5, 1e308, float("nan"), float("-inf"), 10**400, "", "x", "\0",
    "é\n\x1b[2J", "n" * 6000, [], [None], [[[]]], {}, {"a": {"b": []}}, ["a"] * 300,
    "../../etc", "/dev/zero",
)  # fmt: skip
_RAW: dict[str, bytes] = {
    "nothing": b"", "a zero": b"\0", "spaces": b" " * 100_000, "a list": b"[]", "a number": b"3",
    "null": b"null", "a text": b'"x"', "torn": b'{"a": 1', "100,000 brackets": b"[" * 100_000,
    "100,000 braces": b'{"a":' * 100_000, "900 levels": b'{"a":' * 900 + b"1" + b"}" * 900,
    "a lone half": b'{"a": "\\ud800"}', "half a key": b'{"\\udfff": 1}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}", "NaN": b'{"a": NaN}', "comments": b"{} // x",
    "UTF-16": '{"a": 1}'.encode("utf-16"), "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "a mark": b"\xef\xbb\xbf{}", "a million lists": b'{"a": [' + b"[]," * 1_000_000 + b"1]}",
    "HTML": b"<!DOCTYPE html><html></html>", "a pointer": b"version https://git-lfs.github.com\n",
    "YAML": b"a: 1\n", "random bytes": random.Random(7).randbytes(5000), "gzip": b"\x1f\x8b\x08\0",
}  # fmt: skip


def _edit(file: str, change: Callable[[Any], object]) -> Callable[[Path], object]:
    """Changes what a JSON file holds."""

    def edit(folder: Path) -> None:
        value = json.loads((folder / file).read_text())
        new = change(value)
        (folder / file).write_text(json.dumps(value if new is None else new))

    return edit


def _set(file: str, *keys: Any, value: Any) -> Callable[[Path], object]:
    """Gives a place of a JSON file another value."""

    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document.setdefault(key, {}) if isinstance(document, dict) else document[key]
        document[keys[-1]] = value

    return _edit(file, change)


def _write(file: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(data)


def _texts() -> Iterator[Mutation]:
    for file in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        INDEX,
        "generation_config.json",
        "modules.json",
    ):
        for name, data in _RAW.items():
            yield Mutation(f"{file} is {name}", _write(file, data), file == INDEX)


def _values() -> Iterator[Mutation]:
    places = [
        *[("config.json", (key,)) for key in (
            "model_type", "architectures", "tie_word_embeddings", "hidden_size", "vocab_size",
            "num_hidden_layers", "num_attention_heads", "head_dim", "dtype", "torch_dtype",
            "rope_parameters", "text_config", "auto_map", "quantization_config", "eos_token_id",
            "max_position_embeddings", "hidden_act", "sliding_window", "layer_types", "id2label")],
        ("config.json", ("text_config", "tie_word_embeddings")),
        ("config.json", ("rope_parameters", "rope_theta")),
        *[("tokenizer_config.json", (key,)) for key in (
            "eos_token", "pad_token", "chat_template", "auto_map", "added_tokens_decoder",
            "tokenizer_class", "model_max_length", "extra_special_tokens")],
        *[("tokenizer.json", keys) for keys in (
            ("model",), ("added_tokens",), ("model", "vocab"), ("model", "type"), ("version",),
            ("added_tokens", 0), ("added_tokens", 0, "id"), ("added_tokens", 0, "content"),
            ("model", "vocab", "a"), ("model", "merges"))],
        *[("generation_config.json", (key,)) for key in ("eos_token_id", "transformers_version")],
        *[(INDEX, keys) for keys in (
            ("weight_map",), ("metadata",), ("weight_map", "lm_head.weight"),
            ("metadata", "total_size"))],
    ]  # fmt: skip
    for file, keys in places:
        for value in _ODD:
            where = ".".join(map(str, keys))
            change = _set(file, *keys, value=value)
            yield Mutation(f"{file}: {where} is {repr(value)[:40]}", change, file == INDEX)


def _indices() -> Iterator[Mutation]:
    shards = {
        "absent": "model-00003-of-00002.safetensors",
        "up": "../base/model.safetensors",
        "absolute": "/dev/zero",
        "a folder": "..",
        "long": "x" * 5000 + ".safetensors",
        "a zero": "a\0b.safetensors",
        "a break": "a\nb.safetensors",
        "deep": "a/" * 3000,
        "the config": "config.json",
        "half": "\ud800.safetensors",
        "dot": ".",
        "tilde": "~",
    }
    for name, shard in shards.items():
        change = _set(INDEX, "weight_map", "lm_head.weight", value=shard)
        yield Mutation(f"index names a shard: {name}", change, True)
    names = {
        "a missing tensor": "no.such.weight",
        "a long one": "n" * 6000,
        "empty": "",
        "half a character": "\udc00",
        "a control": "a\x1b[2J\nb",
    }
    for name, tensor in names.items():
        change = _set(INDEX, "weight_map", tensor, value=FIRST)
        yield Mutation(f"index names a tensor: {name}", change, True)

    def copied(folder: Path) -> None:
        shutil.copyfile(folder / FIRST, folder / SECOND)

    def swapped(folder: Path) -> None:
        (folder / FIRST).rename(folder / "x")
        (folder / SECOND).rename(folder / FIRST)
        (folder / "x").rename(folder / SECOND)

    many = {f"t{i}": FIRST for i in range(300_000)}
    yield Mutation("the same tensors in two shards", copied, True)
    yield Mutation("shards in each other's place", swapped, True)
    yield Mutation("an index of 300,000 names", _set(INDEX, "weight_map", value=many), True)
    yield Mutation("no index", lambda folder: (folder / INDEX).unlink(), True)
    yield Mutation("no shard", lambda folder: (folder / SECOND).unlink(), True)
    yield Mutation("an empty weight map", _set(INDEX, "weight_map", value={}), True)


# headers and tensors


def _parts(file: Path) -> tuple[dict[str, Any], bytes]:
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _put(file: Path, header: bytes, data: bytes, length: int | None = None) -> None:
    size = len(header) if length is None else length
    file.write_bytes(struct.pack("<Q", size % 2**64) + header + data)


def _header(change: Callable[[dict[str, Any], bytes], Any]) -> Callable[[Path], object]:
    """Changes a header, and the data too where `change` returns (header, data) or both raw."""

    def edit(folder: Path) -> None:
        header, data = _parts(folder / SINGLE)
        new = change(header, data)
        header, data = new if isinstance(new, tuple) else (header, data)
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        _put(folder / SINGLE, raw, data)

    return edit


NAME = "model.layers.0.mlp.up_proj.weight"


def _entry(key: str, value: Any) -> Callable[[Path], object]:
    return _header(lambda header, _: header[NAME].__setitem__(key, value))


def _renamed(name: str) -> Callable[[Path], object]:
    return _header(lambda header, _: header.__setitem__(name, header.pop(NAME)))


def _headers() -> Iterator[Mutation]:
    shapes: list[Any] = [
        [], [0], [SIDE * SIDE], [-SIDE, -SIDE], [SIDE, SIDE + 1], [2**63, 2], [2**64, 1],
        [1] * 5000, [2**32, 2**32], ["16", "16"], [16.0, 16.0], None, "16", [None], [[16, 16]],
        [1, SIDE, SIDE], [SIDE, SIDE, 0], {"0": 16}, [True, 256], [10**400],
    ]  # fmt: skip
    for value in shapes:
        yield Mutation(f"header: shape {repr(value)[:40]}", _entry("shape", value))
    offsets: list[Any] = [
        [0, 1024], [0.0, 1024.0], [1024, 0], [-1024, 0], [0], [0, 1, 2], None, "0", [2**63, 2**63],
        [0, 2**64], ["0", "1024"], {}, [1, 1025], [10**400, 1],
    ]  # fmt: skip
    for value in offsets:
        yield Mutation(f"header: offsets {repr(value)[:40]}", _entry("data_offsets", value))
    for value in (
        "F4",
        "F6_E2M3",
        "C64",
        "I32",
        "F64",
        "BF16",
        "f32",
        "",
        3,
        None,
        [],
        "F8_E4M3",
        "U64",
        "BOOL",
        "x" * 5000,
    ):
        yield Mutation(f"header: type {str(value)[:20]!r}", _entry("dtype", value))
    for name in (
        "",
        "a\0b",
        "a\nb",
        "\x1b[31m",
        "n" * 5000,
        "\ud800",
        "\u202e",
        "é" * 300,
        "__metadata__",
        "model.layers.99999999999999999999.mlp.up_proj.weight",
        "model.layers.-1.mlp.up_proj.weight",
        "model.layers.٣.mlp.up_proj.weight",
        "model.layers.0." + "x." * 2000 + "weight",
        "lm_head.weight.weight",
        "model.layers.4000000.mlp.up_proj.weight",
    ):
        yield Mutation(f"header: a tensor called {repr(name)[:40]}", _renamed(name))
    for value in (3, None, [], {"a": 1}, {"a": None}, {"a": {"b": "c"}}, {"format": "x" * 10**6}):
        change = _header(lambda header, _, value=value: header.update(__metadata__=value))
        yield Mutation(f"header: metadata {repr(value)[:30]}", change)
    for number in (0, 1, 7, 2**31, 2**62, 2**63, 2**64 - 1, 10**8, 10**8 + 1):

        def lied(folder: Path, number: int = number) -> None:
            header, data = _parts(folder / SINGLE)
            _put(folder / SINGLE, json.dumps(header).encode(), data, number)

        yield Mutation(f"header: its length is {number}", lied)
    yield from _layouts()


def _layouts() -> Iterator[Mutation]:
    def raw(text: bytes, size: int = 8) -> Callable[[Path], object]:
        return lambda folder: _put(folder / SINGLE, text, bytes(size))

    one = b'{"dtype": "F32", "shape": [2], "data_offsets": [%d, %d]}'
    two = b'{"a": ' + one + b', "%s": ' + one + b"}"
    layouts = {
        "a name twice": raw(two % (0, 8, b"a", 8, 16), 16),
        "a name and its bytes twice": raw(two % (0, 8, b"a", 0, 8)),
        "overlapping": raw(two % (0, 8, b"b", 4, 12), 12),
        "the same bytes": raw(two % (0, 8, b"b", 0, 8)),
        "a gap": raw(two % (0, 8, b"b", 12, 20), 20),
        "bytes to spare": raw(two % (0, 8, b"b", 8, 16), 1000),
        "UTF-16": raw((b'{"a": ' + one % (0, 8) + b"}").decode().encode("utf-16")),
        "100,000 brackets": raw(b'{"a":' + b"[" * 100_000),
        "spaces before": raw(b"  {}", 0),
        "no tensors": raw(b"{}", 0),
        "two objects": raw(b"{}{}", 0),
        "an array": raw(b"[]", 0),
        "1,400,000 names": raw(b"{" + b'"":{},' * 1_400_000 + b'"":{}}', 0),
        "1,400,000 words": raw(b'{"__metadata__":{' + b'"":"",' * 1_400_000 + b'"":""}}', 0),
        "a shape of ten million": raw(b'{"a":{"shape":[' + b"1," * 10**7 + b"1]}}", 0),
        "only zeros": lambda folder: (folder / SINGLE).write_bytes(bytes(100_000)),
    }
    yield from (Mutation(f"header: {name}", change) for name, change in layouts.items())

    def big(folder: Path) -> None:
        _put(folder / SINGLE, b"{}", b"", 100_000_001)
        os.truncate(folder / SINGLE, 200_000_000)

    yield Mutation("header: over 100 MB", big)
    for name, data in _RAW.items():
        yield Mutation(f"weights are {name}", _write(SINGLE, data))


def _tensors() -> Iterator[Mutation]:
    def edit(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], object]:
        def apply(folder: Path) -> None:
            tensors = load_file(folder / SINGLE)
            change(tensors)
            save_file(tensors, folder / SINGLE)

        return apply

    def fill(value: float) -> Callable[[dict[str, np.ndarray]], object]:
        return lambda tensors: tensors[NAME].__setitem__((3, 5), value)

    def put(value: np.ndarray, name: str = NAME) -> Callable[[dict[str, np.ndarray]], object]:
        return lambda tensors: tensors.__setitem__(name, value)

    def square() -> np.ndarray:
        return np.zeros((SIDE, SIDE), np.float32)

    more = {f"more.{number}": np.zeros(1, np.float32) for number in range(20_000)}
    embedding = "model.embed_tokens.weight"
    changes: dict[str, Callable[[dict[str, np.ndarray]], object]] = {
        **{f"a value of {value}": fill(value) for value in (np.nan, np.inf, -np.inf, 3e38, 1e-45)},
        "a row less": put(np.zeros((SIDE - 1, SIDE), np.float32)),
        "a scalar": put(np.array(1, np.float32)),
        "no elements": put(np.zeros((0, SIDE), np.float32)),
        "four axes": put(np.zeros((2, 2, 8, 8), np.float32)),
        **{
            f"type {kind}": put(np.zeros((SIDE, SIDE), kind))
            for kind in (np.float64, np.float16, np.int8, np.int64, np.bool_, np.uint16)
        },
        "20,000 more": lambda tensors: tensors.update(more),
        "one missing": lambda tensors: tensors.pop(NAME),
        "all but one missing": lambda t: [t.pop(n) for n in list(t) if n != NAME],
        "a prefix": lambda t: [t.__setitem__("m." + n, t.pop(n)) for n in list(t)],
        "one vocabulary row": put(np.zeros((1, SIDE), np.float32), embedding),
        "no vocabulary row": put(np.zeros((0, SIDE), np.float32), embedding),
        "a hundred rows more": put(np.zeros((446, SIDE), np.float32), embedding),
        "another layer": put(square(), "model.layers.2.mlp.up_proj.weight"),
        "all zeros": lambda t: [one.fill(0) for one in t.values()],
    }
    yield from (Mutation(f"tensors: {name}", edit(change)) for name, change in changes.items())


# what stands at a path


def _kinds() -> Iterator[Mutation]:
    def bound(path: Path) -> None:
        here = os.getcwd()
        os.chdir(path.parent)  # addresses of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        finally:
            os.chdir(here)

    def sparse(path: Path) -> None:
        path.touch()
        os.truncate(path, 1 << 41)

    makes: dict[str, Callable[[Path], object]] = {
        "a FIFO": os.mkfifo,
        "a socket": bound,
        "a folder": Path.mkdir,
        "2 TB": sparse,
        "a link to nothing": lambda path: path.symlink_to("absent"),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to a folder": lambda path: path.symlink_to("."),
        **{
            f"a link to {target}": lambda path, target=target: path.symlink_to(target)
            for target in (
                "/dev/zero",
                "/dev/null",
                "/dev/tty",
                "/proc/self/mem",
                "/proc/kmsg",
                "/dev/random",
            )
        },
        "missing": lambda path: None,
        "empty": Path.touch,
    }
    for file in (
        "config.json",
        SINGLE,
        INDEX,
        SECOND,
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "special_tokens_map.json",
        "vocab.txt",
        "LICENSE",
        "amalgam.yaml",
        "additional_chat_templates",
        "modules.json",
    ):
        for name, make in makes.items():

            def replaced(folder: Path, file: str = file, make: Any = make) -> None:
                (folder / file).unlink(missing_ok=True)
                make(folder / file)

            yield Mutation(f"{file} is {name}", replaced, file in (INDEX, SECOND))


def _folders() -> Iterator[Mutation]:
    def becomes(make: Callable[[Path], object]) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            shutil.rmtree(folder)
            make(folder)

        return change

    makes: dict[str, Callable[[Path], object]] = {
        "a file": Path.touch,
        "a FIFO": os.mkfifo,
        "empty": Path.mkdir,
        "missing": lambda _: None,
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    }
    for name, make in makes.items():
        yield Mutation(f"the folder is {name}", becomes(make))

    def only(*files: str) -> Callable[[Path], object]:
        def change(folder: Path) -> None:
            for path in folder.iterdir():
                path.unlink()
            for file in files:
                (folder / file).write_bytes(b"{}")

        return change

    yield Mutation("an adapter's folder", only("adapter_config.json", "adapter_model.safetensors"))
    yield Mutation("a GGUF folder", only("config.json", "model.gguf"))
    yield Mutation("a pickle's folder", only("config.json", "pytorch_model.bin"))
    yield Mutation("two models in one", only("config.json", "a.safetensors", "b.safetensors"))

    def crowded(folder: Path) -> None:
        for number in range(3000):
            (folder / f"note-{number}.txt").touch()

    yield Mutation("3,000 notes beside it", crowded)
    yield Mutation("a template of 5 MB", _write("chat_template.jinja", b"{{ a }}" * 700_000))
    for name, data in (("no template", b"{% if"), ("Latin-1", b"\xe9"), ("zeros", bytes(50))):
        yield Mutation(f"chat_template.jinja is {name}", _write("chat_template.jinja", data))


def _flips(seed: int) -> Iterator[Mutation]:
    """Without end: files with some bytes changed, cut short, doubled or shifted."""
    numbers = random.Random(seed)
    files = (
        SINGLE,
        SINGLE,
        SINGLE,
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        INDEX,
    )
    for count in range(1 << 30):
        file, kind, draw = numbers.choice(files), numbers.randrange(4), numbers.randrange(1 << 30)

        def change(folder: Path, file: str = file, kind: int = kind, draw: int = draw) -> None:
            here = random.Random(draw)
            data = bytearray((folder / file).read_bytes())
            near = min(len(data), 1500)  # of a header rather than of values
            if kind == 0:
                for _ in range(here.randint(1, 5)):
                    data[here.randrange(near)] = here.randrange(256)
            elif kind == 1:
                del data[here.randrange(len(data)) :]
            elif kind == 2:
                at = here.randrange(near)
                data[at:at] = data[at : at + here.randint(1, 300)]
            else:
                del data[(at := here.randrange(near)) : at + here.randint(1, 50)]
            (folder / file).write_bytes(data)

        yield Mutation(f"{file} disturbed {count} ({kind}, {draw})", change, file == INDEX)


def mutations(count: int, seed: int = 0) -> list[Mutation]:
    """So many, the same for a seed: of those made by hand a draw, or all and then random ones."""
    parts = (_texts, _values, _indices, _headers, _tensors, _kinds, _folders)
    made = [one for part in parts for one in part()]
    flips = _flips(seed)
    random_ones = max(count // 8, count - len(made))
    chosen = random.Random(seed).sample(made, count - random_ones)
    return [*chosen, *(next(flips) for _ in range(random_ones))]


# trying them


def _prepared(parent: Path, mutation: Mutation, as_base: bool) -> Path:
    """A family in which one model is mutated, and its recipe. Its folder."""
    case = parent / "case"
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    (case / "out").mkdir()
    for name in ("base", "expert0", "expert1"):
        mutated = name == ("base" if as_base else "expert0")
        origin = parent / ("sharded" if mutated and mutation.shards else name)
        shutil.copytree(origin, case / name)
        if mutated:
            mutation.change(case / name)
    models = [{"model": f"expert{i}", "parameters": {"density": 0.5}} for i in range(2)]
    recipe = {"merge_method": "ties", "base_model": "base", "models": models}
    (case / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return case


def _attempt(case: Path, command: str) -> Outcome:
    """Runs one command in this process."""
    from merging.__main__ import main

    recipe, out = str(case / "recipe.yaml"), case / "out" / "merged"
    runs: dict[str, Callable[[], int]] = {
        "check": lambda: main(["check", recipe, "--out", str(out)]),
        "inspect": lambda: main(["inspect", str(case / "base"), str(case / "expert0")]),
        "merge": lambda: main(["merge", recipe, str(out), "--device", "cpu"]),
        "list": lambda: _listed(case),
    }
    words = io.StringIO()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    started = time.process_time()
    with contextlib.redirect_stderr(words), contextlib.redirect_stdout(io.StringIO()):
        try:
            status: int | None = runs[command]()
            if command == "merge" and status == 0:
                _check_sound(out)
        except Exception:
            status = None
            traceback.print_exc()
    seconds = time.process_time() - started
    remains = tuple(p.name for p in (case / "out").iterdir() if p.name != "merged" or status)
    return Outcome(command, status, words.getvalue(), seconds, _peak_bytes(), remains)


def _listed(parent: Path) -> int:
    """What the app does with the folder when it starts."""
    from ui.library import Library

    library = Library([parent])
    assert all(model.shape for model in library.models())
    assert all(reason for _, reason in library.left_out())
    return 0


def _check_sound(out: Path) -> None:
    """Raises where a merged model is not what it should be: all its tensors, and finite."""
    assert isinstance(json.loads((out / "config.json").read_text()), dict)
    for file in out.glob("*.safetensors"):
        for name, tensor in load_file(file).items():
            assert tensor.dtype.kind != "f" or np.isfinite(tensor).all(), name


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _work(parent: Path, count: int, seed: int) -> None:
    """The watched process: takes numbers of mutations, answers with outcomes, a line each."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    chosen = mutations(count, seed)
    for line in sys.stdin:
        number = int(line)
        case = _prepared(parent, chosen[number], as_base=number % 2 == 0)
        for command in COMMANDS:
            answers.write(json.dumps(vars(_attempt(case, command))) + "\n")


class Watched:
    """A process that tries mutations; one that hangs is ended and begun again."""

    def __init__(self, parent: Path, count: int, seed: int) -> None:
        self._command = [
            sys.executable,
            "-m",
            "tests.mutated_folders",
            "--work",
            str(parent),
            "--count",
            str(count),
            "--seed",
            str(seed),
        ]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def outcomes(self, number: int) -> list[Outcome]:
        """What the commands did with a mutation, as far as they came."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{number}\n".encode())
        result = []
        for command in COMMANDS:
            ready, _, _ = select.select([stdout], [], [], _PATIENCE_S)
            line = stdout.readline() if ready else b""
            if not line:
                self.close()
                status = self._process.returncode
                result.append(Outcome(command, status, "no answer", _PATIENCE_S, 0))
                self._start()
                break
            answer = json.loads(line)
            result.append(Outcome(**{**answer, "remains": tuple(answer["remains"])}))
        return result

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


def try_all(
    count: int, seed: int, tell: Callable[[str], object] = lambda text: None
) -> tuple[str, list[str]]:
    """Tries so many mutations. A summary, and a text for each that did what must not happen.

    Args:
        tell: gets each such text at once.
    """
    statuses: dict[str, dict[Any, int]] = {command: {} for command in COMMANDS}
    slowest, largest = (0.0, ""), (0, "")
    faulty = []
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder)
        write_family(parent)
        watched = Watched(parent, count, seed)
        try:
            for number, mutation in enumerate(mutations(count, seed)):
                for one in watched.outcomes(number):
                    name = f"{number} {mutation.name}, {one.command}"
                    counts = statuses[one.command]
                    counts[one.status] = counts.get(one.status, 0) + 1
                    slowest = max(slowest, (one.seconds, name))
                    largest = max(largest, (one.peak_bytes, name))
                    if one.faults:
                        faulty.append(f"{name}: {', '.join(one.faults)}\n{one.err[-1500:]}")
                        tell(faulty[-1])
        finally:
            watched.close()
    summary = (
        f"{count} folders, {len(faulty)} commands at fault; statuses {statuses}; slowest "
        f"{slowest[0]:.2f} s ({slowest[1]}), largest {largest[0] / 1e6:.0f} MB ({largest[1]})"
    )
    return summary, faulty


def main() -> int:
    """Tries as many as asked for. Returns 1 where one was at fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work is not None:
        _work(args.work, args.count, args.seed)
        return 0
    summary, faulty = try_all(args.count, args.seed, lambda text: print(text, flush=True))
    print(summary)
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
