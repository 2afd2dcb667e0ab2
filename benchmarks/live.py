"""The live model against writing and loading: `python -m benchmarks.live [--size 124.7m]`.

Loads a base, then moves sliders as a person would, and prints for each move how long it takes until
the live model has its new values and until it says its first token. Beside it stand, in the same
run, the floor (a copy of the network's own bytes) and what a person does without it: write the
merge, load it, ask. What it takes to keep what answers is told, too.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.family import SHAPES, make_family
from merging.demo import DOMAINS
from merging.demo.tokenizer import build_tokenizer
from merging.live.model import LiveModel
from merging.recipe import Recipe, from_mapping
from merging.run.merge import merge
from merging.trial.chat import ChatModel, Sampling
from merging.trial.commands import quiet_transformers

BUILD = Path("build/benchmarks")
QUESTION = [{"role": "user", "content": "What is 37 + 45?"}]
DRAWN = {"ties": {}, "dppa": {"amplification": [1.7, 1.4, 1.1, 1.0]}, "task_arithmetic": None}


def models_of(size: str) -> tuple[str, ...]:
    """The base and three experts: the built-in family's, or random ones of a size."""
    if size == "demo":
        return "demo:base", *(f"demo:{domain}" for domain in DOMAINS[:3])
    folders = make_family(SHAPES[size], BUILD / f"{size}-family")
    if not (folders[0] / "tokenizer.json").exists():
        build_tokenizer().save_pretrained(folders[0])
    return tuple(str(folder.resolve()) for folder in folders)


def moves(models: tuple[str, ...], method: str) -> Iterator[tuple[str, Recipe]]:
    """What a person does: names of moves, and the recipes after them."""
    own: Mapping[str, Any] | None = DRAWN[method]

    def recipe(weight: Any, density: Any) -> Recipe:
        values = {"weight": weight} | ({} if own is None else {"density": density, **own})
        sources = [{"model": model, "parameters": values} for model in models[1:]]
        document = {"merge_method": method, "base_model": models[0], "models": sources}
        return from_mapping(document)

    weight, density = 0.5, 0.3
    yield "first", recipe(weight, density)
    for step in range(3):
        if own is not None:
            density = 0.35 + 0.05 * step
            yield "density", recipe(weight, density)
        weight = 0.6 + 0.1 * step
        yield "weight", recipe(weight, density)
    for step in range(3):
        layer = [{"filter": "layers.1.", "value": 0.2 + 0.1 * step}, {"value": 0.8}]
        yield "a layer's weight", recipe(layer, density)


def first_token(model: LiveModel | ChatModel) -> None:
    """Returns once the model has said its first token."""
    next(iter(model.stream(QUESTION, Sampling(max_new_tokens=1))))


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def floor(live: LiveModel) -> float:
    """Seconds to copy the network's own bytes, the best of three."""
    network = live.chat.model.network
    tensors = [values.clone() for values in network.state_dict().values()]

    def copy() -> None:
        for to, values in zip(network.state_dict().values(), tensors, strict=True):
            to.copy_(values)

    with torch.inference_mode():
        return min(timed(copy) for _ in range(3))


def written(recipe: Recipe, out: Path) -> float:
    """Seconds to write a merge, load it and hear its first token."""
    shutil.rmtree(out, ignore_errors=True)

    def work() -> None:
        merge(recipe, out)
        first_token(ChatModel.load(out))

    seconds = timed(work)
    shutil.rmtree(out)
    return seconds


def kept(live: LiveModel, out: Path) -> float:
    """Seconds to write what answers, without merging again."""
    shutil.rmtree(out, ignore_errors=True)
    seconds = live.keep(out).seconds
    shutil.rmtree(out)
    return seconds


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("demo", *SHAPES), default="124.7m")
    parser.add_argument("--methods", nargs="+", choices=DRAWN, default=list(DRAWN))
    args = parser.parse_args()
    quiet_transformers()
    models = models_of(args.size)
    print(f"| {args.size} | move | tensors | settled ms | first token ms | x floor | x written |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for method in args.methods:
        seen: dict[str, list[tuple[int, float, float]]] = {}
        live: LiveModel | None = None
        for name, recipe in moves(models, method):
            live = live or LiveModel.load(recipe)
            settled = live.settle(recipe)
            answered = settled.seconds + timed(partial(first_token, live))
            seen.setdefault(name, []).append((len(settled.rewritten), settled.seconds, answered))
            print(f"{method} {name}: {answered:.3f} s", file=sys.stderr)
        assert live is not None
        least, whole = floor(live), written(recipe, BUILD / "live-out")
        saved = kept(live, BUILD / "live-kept")
        note = f"{method} kept: {saved:.3f} s; written, loaded and asked: {whole:.3f} s"
        print(note, file=sys.stderr)
        for name, rows in seen.items():
            count, settling, answering = map(statistics.median, zip(*rows, strict=True))
            print(
                f"| {method} | {name} | {count:.0f} | {settling * 1e3:.0f} | {answering * 1e3:.0f} "
                f"| {settling / least:.1f} | {whole / answering:.0f} |"
            )


if __name__ == "__main__":
    main()
