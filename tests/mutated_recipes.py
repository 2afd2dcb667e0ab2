"""Recipes that nobody should have written: `python -m tests.mutated_recipes --count 200`.

Valid recipes with one thing changed at random (the same for the same seed), texts made to be
expensive, and files that are none. Each is given to the command `merge` over a small family, in a
process of its own, and what must not happen is printed: a traceback, a status other than 0 and 2,
more than one line, a line that is long or holds control characters, more than 5 s of the processor
or 60 s of waiting, more than 1 GB.
`--together` gives all to one process, which is fast enough to be a test.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import io
import json
import os
import random
import signal
import socket
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
from safetensors.numpy import save_file

MOST_SECONDS, MOST_BYTES, MOST_CHARACTERS = 5.0, 1_000_000_000, 500
_PATIENCE_S = 60.0  # what takes longer is waiting for something: it is ended, which is a fault
SIDE = 16


@dataclass(frozen=True)
class Mutation:
    """One recipe to try: `make` puts it at a path."""

    name: str
    make: Callable[[Path], object]


@dataclass(frozen=True)
class Outcome:
    """What became of one: how the command ended, and the processor's time and memory it took."""

    status: int | None
    err: str
    seconds: float
    peak_bytes: int

    @property
    def faults(self) -> list[str]:
        """What must not happen, in words."""
        lines = self.err.splitlines()
        wrong = [line for line in lines if line.startswith("error: ")]
        faults_of = {
            f"status {self.status}": self.status not in (0, 2),
            "a traceback": "Traceback" in self.err,
            f"{len(wrong)} error lines": len(wrong) != (self.status == 2),
            "a line too long": any(len(line) > MOST_CHARACTERS + 20 for line in lines),
            "a control character": not all(line.isprintable() for line in lines),
            f"{self.seconds:.1f} s": self.seconds > MOST_SECONDS,
            f"{self.peak_bytes / 1e6:.0f} MB": self.peak_bytes > MOST_BYTES,
        }
        return [fault for fault, is_there in faults_of.items() if is_there]


# the family and the recipes that are changed


def write_family(parent: Path) -> None:
    """Writes base and three experts of two layers under `parent`; needs no torch."""
    numbers = np.random.default_rng(0)
    names = [
        f"model.layers.{i}.mlp.{kind}_proj.weight" for i in range(2) for kind in ("up", "down")
    ]
    base = {name: numbers.normal(size=(SIDE, SIDE)).astype(np.float32) for name in names}
    for model in ("base", "expert0", "expert1", "expert2"):
        folder = parent / model
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
        change = 0.0 if model == "base" else 1e-3
        tensors = {
            name: values + change * numbers.normal(size=values.shape).astype(np.float32)
            for name, values in base.items()
        }
        save_file(tensors, folder / "model.safetensors")


def _recipes() -> list[dict[str, Any]]:
    """Valid documents of every kind."""

    def document(method: str, values: dict, parameters: dict, **keys: Any) -> dict[str, Any]:
        models = [{"model": f"expert{i}", "parameters": dict(values)} for i in range(3)]
        return {
            "merge_method": method,
            "base_model": "base",
            "models": models,
            "parameters": parameters,
            **keys,
        }

    rules = [{"filter": "up_proj", "value": [0.5, 1]}, {"value": 0.3}]
    sources = [{"model": f"expert{i}", "layer_range": [0, 2]} for i in range(2)]
    return [
        document("linear", {"weight": 1}, {"normalize": True}, dtype="float16"),
        document("ties", {"weight": [0, 0.5, 1], "density": 0.3}, {"lambda": 0.7}),
        document("ties", {"density": rules}, {"scope": "tensor", "int8_mask": True}),
        document("dare_ties", {"density": 0.5}, {"seed": 7, "rescale": True}),
        document("dppa", {"density": 0.4, "amplification": [1.8, 1]}, {"density_shift": 0.05}),
        document("pcb", {"weight": 1.2}, {"density": 0.2, "variant": "pairwise"}),
        document("magnitude", {"density": 0.2}, {"scope": "model", "consensus": "ties"}),
        {
            "merge_method": "task_arithmetic",
            "base_model": {"model": {"path": "base"}},
            "slices": [{"sources": sources, "parameters": {"weight": 0.4}}],
            "tokenizer_source": "base",
            "chat_template": "auto",
            "name": "mine",
            "record": {"inputs": {"base": "sha256:0"}},
        },
    ]


# what a value or a key is changed to

_WRONG = (
    "true", "false", "null", "~", "''", "[]", "{}", "[[]]", "[{}]", "{a: 1}", "[1, [2]]", "-1",
    "-0.0", "0", "1e309", "-1e309", ".inf", "-.inf", ".nan", "1e-320", "10" * 20, "9" * 5000,
    "0x" + "f" * 5000, "0o777", "0b11", "1_000", "1:30", "'1e3'", "'nan'", "'inf'", "'0x10'",
    "2026-01-31", "2026-99-99", "12:30:45", "yes", "off", "=", "<<", "!!binary aGk=", "!!set {a}",
    "!!omap [a: 1]", "!!python/object/apply:os.getcwd []", "!!python/name:os.system ''",
    "!!int x", "!!int ''", "!!float x", "!!bool maybe", "!!str {a: 1}", "!!map x", "!local x",
    "! x", "*nothing", "&a [*a]", "&b {c: *b}", '"\\0"', '"\\e[31mred"', '"\\u202e"', '"\\ud800"',
    "'" + "n" * 5000 + "'", "'" + "n " * 3000 + "'", "'é'", "'😀'", "'a\tb'", "'../../etc'",
    "'/dev/zero'", "'~nobody/x'", "'a@b'", "'demo:nope'", "'x/y'", "base", "expert0", "ties",
    "[" + "0.5, " * 3000 + "1]", "[" * 200 + "]" * 200, "{filter: x, value: 1}",
    "[{filter: 3, value: [1, 2]}]", "[{filter: '', value: true}]", "[{filter: [a], value: 1}]",
    "[{value: {value: 1}}]", "[{fliter: a, value: 1}]", "[0.5, x]", "[0.5, {value: 1}]",
    "[{filter: '(a+)+$', value: 1}, {value: 1}]",
)  # fmt: skip
_KEYS = (
    "1",
    "true",
    "~",
    "on",
    "''",
    "<<",
    "? [a]\n",
    "{a: 1}",
    "'\\0'",
    "k" * 3000,
    "densty",
    "parameters",
    "modules",
    "é",
    '"\\e[2J"',
    "2026-01-31",
    "!!int 1",
    "&k key",
    "*k",
)


def _changed(numbers: random.Random) -> bytes:
    """A valid recipe with one value or key replaced."""
    document = copy.deepcopy(numbers.choice(_recipes()))
    places = list(_places(document))
    inside, at = numbers.choice(places)
    mark = "M4RK"
    if isinstance(inside, dict) and numbers.random() < 0.2:
        inside[mark] = inside.pop(at)
        new = numbers.choice(_KEYS)
    else:
        inside[at] = mark
        new = numbers.choice(_WRONG)
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=numbers.random() < 0.5)
    return text.replace(mark, new).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _torn(numbers: random.Random) -> bytes:
    """The text of a valid recipe with its lines or bytes disturbed."""
    text = yaml.safe_dump(numbers.choice(_recipes()), sort_keys=False)
    lines = text.splitlines(keepends=True)
    at, other = numbers.randrange(len(lines)), numbers.randrange(len(lines))
    data = bytearray(text.encode())
    place = numbers.randrange(len(data))
    kind = numbers.randrange(10)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(at, lines[at])
    elif kind == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        lines[at] = " " * numbers.randrange(1, 5) + lines[at]
    elif kind == 4:
        lines[at] = "\t" + lines[at]
    elif kind == 5:
        lines[at] = lines[at].rstrip("\n") + numbers.choice([" # x\n", ": y\n", " &a\n", " |\n"])
    if kind <= 5:
        return "".join(lines).encode()
    if kind == 6:
        return bytes(data[:place])
    data[place] = numbers.choice([0, 9, 27, 0x80, 0xC3, 0xFF, 0x22, 0x5B, 0x7B, 0x3A, 0x2A])
    return bytes(data)


# texts that are expensive, and files that are none


def _with_models(models: str, rest: str = "") -> str:
    return f"merge_method: ties\nbase_model: base\nmodels: {models}\n{rest}"


@functools.cache
def expensive() -> dict[str, str | bytes]:
    """Texts made to be expensive, or unlike any recipe, by name."""
    one = "[{model: expert0}]"
    doubled = "\n".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}1]" for i in range(1, 12))
    merged = "\n".join(
        f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}], {', '.join(f'k{i}_{j}: 1' for j in range(9))}}}"
        for i in range(1, 25)
    )
    deep = "[" * 100_000
    sliced = "merge_method: ties\nbase_model: base\nslices: "

    def slice_of(layer: int, *models: str) -> str:
        sources = [f"{{model: {model}, layer_range: [{layer}, {layer + 1}]}}" for model in models]
        return f"{{sources: [{', '.join(sources)}]}}"

    slices = [slice_of(i, *(f"m{i}_{j}" for j in range(60))) for i in range(250)]
    many = ", ".join(f"{{model: expert{i}}}" for i in range(12_000))
    return {
        "an alias that holds itself": _with_models(one).replace("base\n", "&a {model: *a}\n"),
        "a model that holds itself": _with_models("[&a {model: *a}]"),
        "models that hold themselves": _with_models("&a [*a]"),
        "an alias bomb": f"a0: &a0 [x, x]\n{doubled}\n" + _with_models("*a11"),
        "an alias bomb as a method": f"base_model: b\na0: &a0 [x]\n{doubled}\nmerge_method: *a11",
        "an alias bomb of text": f"x: &x {'n' * 100_000}\n" + _with_models(f"[{'*x, ' * 9000}]"),
        "merge keys that multiply": f"m0: &m0 {{a: 1}}\n{merged}\n" + _with_models("[*m24]"),
        "12,000 models": _with_models(f"[{many}]"),
        "12,000 models of one name": _with_models(f"[{'expert0, ' * 12_000}]"),
        "256 models that are nowhere": _with_models(str([f"no{i}" for i in range(256)])),
        "a million knots": _with_models(one, f"parameters: {{weight: [{'1, ' * 1_000_000}]}}"),
        "50,000 knots": _with_models(one, f"parameters: {{weight: [{'1, ' * 50_000}]}}"),
        "20,000 rules": _with_models(
            one, f"parameters: {{weight: [{'{filter: aa, value: 1}, ' * 20_000}]}}"
        ),
        "100,000 brackets": deep,
        "100,000 braces": "{" * 100_000,
        "100,000 dashes": "- " * 100_000,
        "100,000 question marks": "? " * 100_000,
        "deep blocks": "\n".join(" " * i + "a:" for i in range(2000)),
        "deep references": "base_model: " + "{model: " * 60 + "x" + "}" * 60,
        "60,000 directives": "".join(f"%TAG !a{i}! x\n" for i in range(60_000)) + "---\n1",
        "60,000 anchors": "".join(f"- &a{i} x\n" for i in range(60_000)),
        "60,000 keys": "".join(f"k{i}: 1\n" for i in range(60_000)),
        "a key of a megabyte": "k" * 1_000_000 + ": 1",
        "a name of a megabyte": _with_models(f"[{'n' * 1_000_000}]"),
        "a base of a megabyte": _with_models(one).replace("base\n", "a/" * 500_000 + "\n"),
        "a method of a megabyte": _with_models(one).replace("ties", "t" * 1_000_000),
        "a type of a megabyte": _with_models(one, "dtype: " + "f" * 1_000_000),
        "ten megabytes": "a" * 10_000_000,
        "spaces": " " * 3_000_000,
        "comments": "#\n" * 1_000_000,
        "a megabyte of quotes": '"' + "\\\n" * 500_000,
        "keys of mixed types": _with_models(
            one, "parameters: {weight: [{filter: a, value: 1, 1: 2, null: 3, true: 4}]}"
        ),
        "keys of mixed types at the top": _with_models(one, "1: a\nnull: b\ntrue: c\n2.5: d"),
        "a key that is a list": _with_models(one, "? [a, b]\n: 1"),
        "a key that is an alias": _with_models("[&a expert0]", "*a : 1"),
        "5,000 slices": f"{sliced}[{', '.join(slice_of(i, f'm{i}') for i in range(5000))}]",
        "250 slices of 60 models": f"{sliced}[{', '.join(slices)}]",
        "250 slices": f"{sliced}[{', '.join(slice_of(i, 'expert0') for i in range(250))}]",
        "many parts to keep": _with_models(one, f"keep_base: [{'ab, ' * 50_000}]"),
        "two documents": _with_models(one) + "---\n" + _with_models(one),
        "an end and more": _with_models(one) + "...\nmore: 1",
        "a bomb in the record": f"r: &a0 [x]\n{doubled}\n" + _with_models(one, "record: *a11"),
        "a bomb as a tokenizer": f"a0: &a0 [x]\n{doubled}\n" + _with_models(one, "tokenizer: *a11"),
        "UTF-16": _with_models(one).encode("utf-16"),
        "UTF-32": _with_models(one).encode("utf-32"),
        "a byte-order mark": b"\xef\xbb\xbf" + _with_models(one).encode(),
        "Latin-1": _with_models("[{model: é}]").encode("latin-1"),
        "NUL": _with_models(one).encode() + b"\0",
        "line ends of other systems": _with_models(one).replace("\n", "\r\n"),
        "nothing": "",
        "a BOM alone": b"\xef\xbb\xbf",
        "a marker": "---",
        "a tab": "\t",
        "a list": "[1, 2]",
        "a number": "3",
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    }


def _socket(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        before = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        server.bind(path.name)
        os.chdir(before)


_NO_FILES: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a folder": Path.mkdir,
    "absent": lambda path: None,
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/dev/full": lambda path: path.symlink_to("/dev/full"),
    "/dev/null": lambda path: path.symlink_to("/dev/null"),
    "/proc/self/mem": lambda path: path.symlink_to("/proc/self/mem"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "a sparse file of 10 GB": lambda path: os.truncate(
        os.open(path, os.O_CREAT | os.O_RDWR), 10**10
    ),
}


def mutations(count: int, seed: int = 0) -> list[Mutation]:
    """At least `count` mutations: those made by hand, then random ones, the same for a seed."""

    def text(data: str | bytes) -> Callable[[Path], object]:
        raw = data.encode() if isinstance(data, str) else data
        return lambda path: path.write_bytes(raw)

    result = [Mutation(name, text(data)) for name, data in expensive().items()]
    result += [Mutation(name, make) for name, make in _NO_FILES.items()]
    numbers = random.Random(seed)
    for number in range(count - len(result)):
        kind = _torn if numbers.random() < 0.3 else _changed
        result.append(Mutation(f"{kind.__name__[1:]} {number}", text(kind(numbers))))
    return result


# trying them


def try_alone(file: Path, out: Path) -> Outcome:
    """Runs `merge` in a process of its own."""
    command = [sys.executable, "-m", "merging", "merge", str(file), str(out)]
    deadline = time.monotonic() + _PATIENCE_S
    with tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        err.seek(0)
        words = err.read().decode(errors="replace")
    used = ended[2]
    seconds = used.ru_utime + used.ru_stime
    return Outcome(process.returncode, words, seconds, used.ru_maxrss * 1024)


def try_here(file: Path, out: Path) -> Outcome:
    """Runs `merge` in this process. Its peak is this process's so far."""
    from merging.__main__ import main

    words = io.StringIO()
    started = time.process_time()
    with contextlib.redirect_stderr(words), contextlib.redirect_stdout(io.StringIO()):
        try:
            status: int | None = main(["merge", str(file), str(out)])
        except Exception:
            status = None
            traceback.print_exc()
    return Outcome(status, words.getvalue(), time.process_time() - started, _peak_bytes())


def _peak_bytes() -> int:
    """Of this process alone: getrusage tells the larger one's that it was forked from."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def try_all(count: int, seed: int, attempt: Callable[[Path, Path], Outcome]) -> int:
    """Tries mutations and prints what must not happen. Returns how many did it."""
    faulty, slowest, largest = 0, (0.0, ""), (0, "")
    statuses: dict[int | None, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder)
        write_family(parent)
        for number, mutation in enumerate(mutations(count, seed)):
            file = parent / f"recipe{number}.yaml"
            mutation.make(file)
            outcome = attempt(file, parent / f"out{number}")
            statuses[outcome.status] = statuses.get(outcome.status, 0) + 1
            slowest = max(slowest, (outcome.seconds, mutation.name))
            largest = max(largest, (outcome.peak_bytes, mutation.name))
            if outcome.faults:
                faulty += 1
                print(
                    f"{number} {mutation.name}: {', '.join(outcome.faults)}\n{outcome.err[-2000:]}"
                )
    print(
        f"{sum(statuses.values())} recipes, {faulty} at fault; statuses {statuses}; slowest "
        f"{slowest[0]:.2f} s ({slowest[1]}), largest {largest[0] / 1e6:.0f} MB ({largest[1]})"
    )
    return faulty


def main() -> int:
    """Tries as many as asked for. Returns 1 where one was at fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--together", action="store_true", help="in one process")
    args = parser.parse_args()
    attempt = try_here if args.together else try_alone
    return 1 if try_all(args.count, args.seed, attempt) else 0


if __name__ == "__main__":
    sys.exit(main())
