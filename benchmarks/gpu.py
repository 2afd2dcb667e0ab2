"""Re-merges of a family that stays in a GPU's memory: `python -m benchmarks.gpu [--size 1.1b]`.

Prints, per method and engine, milliseconds (median), GB/s of the bytes that it must move (every
model read once, or as often as READS says, the result written once), the share of the device's own
copy bandwidth, and how many times as long it takes as TIES, where that was measured before.
Each run decides anew, with a density no run before had, and leaves the whole merged model on the
device. `--write` adds whole merges, written and read back, first and again, on the device and the
CPU. `--device cpu` does the same without a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.family import SHAPES, make_family
from benchmarks.peers import BUILD, RECIPES
from merging import recipe as recipes
from merging.checkpoints import Family
from merging.engines.eager import Stream
from merging.engines.residents import Residents
from merging.engines.sources import KeptFamily, resident_bytes
from merging.gpu.stream import KernelStream
from merging.recipe import Recipe
from merging.run.lowering import lower
from merging.run.merge import merge
from merging.run.preflight import open_recipe

READS = {"pcb": 2}  # times that a merge reads all models; once if not named
MOVING = {"pcb": 0.1}  # densities of a whole recipe, which move from run to run
TOGETHER = 1 << 29  # bytes merged in one launch: nothing is written meanwhile


def copy_bandwidth(device: str, size: int = 1 << 30, runs: int = 20) -> float:
    """Bytes read and written per second by a plain copy of `size` bytes on the device."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), device, runs)
    return 2 * size / seconds


def remerge(build: Callable[[], Recipe], family: Family, kept: KeptFamily, engine: type) -> None:
    """One merge, from recipe to values; those stay on the device."""
    recipe = build()
    stream = engine(family, device=kept.device, source=kept)
    decided = lower(recipe, stream).decide
    dtypes = {entry.name: "BF16" for entry in family.merged}

    if isinstance(stream, KernelStream):
        made = []
        for batch in stream.batches(family.merged, dtypes, most=TOGETHER):
            jobs, others = stream.decided(batch, decided, dtypes)
            assert not others
            made.append((stream.launched(jobs), len(jobs)))
        for merged, count in made:
            merged.told(count)
        return
    for reader in stream.readers():
        for _, _, merged in reader.merged(*decided(reader)):
            merged.bfloat16()


def recipe_of(method: str, base: Path, experts: Sequence[Path], fresh: Iterator[int]) -> Recipe:
    """A recipe that no run before had."""
    values = dict(RECIPES[method])
    if "density" in values:
        values["density"] += 1e-4 * next(fresh)
    whole = {"density": MOVING[method] + 1e-4 * next(fresh)} if method in MOVING else {}
    return recipes.build(
        method=method, base=str(base), models=[(str(e), values) for e in experts],
        parameters=whole, dtype="bfloat16",
    )  # fmt: skip


def whole_merges(build: Callable[[], Recipe], out: Path, devices: Sequence[str]) -> list[str]:
    """Seconds of merges that are written and read back, first and again, per device."""
    found = []
    for device in devices:
        residents = Residents()
        for _ in range(2):
            started = time.perf_counter()
            result = merge(build(), out, device=device, overwrite=True, residents=residents)
            seconds = time.perf_counter() - started
            found.append(f"{seconds:.2f} s {result.engine} on {result.device}")
    return found


def timed(work: Callable[[], object], device: str, runs: int) -> float:
    """Median seconds of a piece of work, once warm."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times = []
    for _ in range(runs + 1):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1.1b", choices=SHAPES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties", "pcb"])
    parser.add_argument("--family", type=Path, help="a family already made")
    parser.add_argument("--write", action="store_true", help="whole merges too")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA GPU is present; --device cpu runs the same code", file=sys.stderr)
        return 2
    home = args.family or BUILD / f"{args.size}-family-{args.device}"
    base, *experts = make_family(SHAPES[args.size], home, device=args.device)
    bandwidth = copy_bandwidth(args.device)
    if args.device.startswith("cuda"):
        print(torch.cuda.get_device_name())
    print(f"copy: {bandwidth / 1e9:.0f} GB/s\n")
    print("| method | engine | ms | GB/s | floor ms | of copy bandwidth | times TIES |")
    print("|---|---|---|---|---|---|---|")
    usual: dict[str, float] = {}
    kept = None
    fresh = itertools.count(1)
    for method in args.methods:
        build = partial(recipe_of, method, base, experts, fresh)
        family = open_recipe(build())
        kept = kept or KeptFamily(family, args.device)
        moved = READS.get(method, 1) * resident_bytes(family) + 2 * sum(
            entry.numel for entry in family.merged
        )
        for engine in (Stream, KernelStream):
            work = partial(remerge, build, family, kept, engine)
            seconds = timed(work, args.device, args.runs if engine is KernelStream else 1)
            rate = moved / seconds
            if method == "ties":
                usual[engine.engine] = seconds
            times = f"{seconds / usual[engine.engine]:.1f}" if engine.engine in usual else "-"
            print(
                f"| {method} | {engine.engine} | {1000 * seconds:.2f} | {rate / 1e9:.0f} "
                f"| {1000 * moved / bandwidth:.2f} | {rate / bandwidth:.0%} | {times} |",
                flush=True,
            )  # fmt: skip
    kept = None
    for method in args.methods if args.write else ():
        build = partial(recipe_of, method, base, experts, fresh)
        told = whole_merges(build, home.with_name(f"{home.name}-merged"), [args.device, "cpu"])
        print(f"{method}, written: {', '.join(told)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
