"""Merges on a GPU: `python -m benchmarks.gpu [--sizes 1.1b 3.2b] [--methods ties dppa]`.

Base and experts stay in the device's memory; every run decides anew, with a value of its knob that
no run before had, and leaves the whole merged model there. Prints, per method: seconds of the first
merge (kernels are compiled, the family is measured), milliseconds of later ones (median), the floor
(each model read once, or as often as READS says, and the result written once, at the device's own
copy bandwidth), the share of that bandwidth, and the ratio to TIES. Then how long a scan takes,
beside reading the same bytes.

First it checks, on a smaller family, that the device writes the CPU's bytes. `--write` adds whole
merges, written and read back, first and again, on the device and the CPU. `--device cpu` runs the
same code without a GPU, kernels interpreted, at a tiny size.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.family import SHAPES, make_family
from benchmarks.peers import BUILD, ONE_EXPERT, RECIPES
from merging import recipe as recipes
from merging.checkpoints import Family
from merging.engines.residents import Residents
from merging.engines.sources import KeptFamily, family_key, resident_bytes
from merging.gpu.stream import KernelStream
from merging.recipe import Recipe
from merging.run.lowering import lower
from merging.run.merge import merge
from merging.run.preflight import open_recipe
from merging.sketches.scan import scan

METHODS = ("task_arithmetic", "ties", "dppa", "pcb", "della", "breadcrumbs", "sce", "slerp")
MOVED = {"task_arithmetic": "weight", "slerp": "t", "sce": "select_topk"}
"""The knob that every run moves; `density` by default."""
YARDSTICK = "ties"
DENSITIES = {"pcb": 0.1}  # of recipes that name none
READS = {"pcb": 2, "della": 2, "sce": 2}  # times that a merge reads all models; once if not named
TOGETHER = 1 << 29  # bytes merged in one launch: nothing is written meanwhile


def copy_bandwidth(device: str, size: int = 1 << 30, runs: int = 20) -> float:
    """Bytes read and written per second by a plain copy of `size` bytes on the device."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source), device, runs)
    return 2 * size / statistics.median(seconds[1:])


def remerge(build: Callable[[], Recipe], family: Family, kept: KeptFamily) -> None:
    """One merge, from recipe to values; those stay on the device."""
    recipe = build()
    stream = KernelStream(family, device=kept.device, source=kept)
    decide = lower(recipe, stream).decide
    dtypes = {entry.name: "BF16" for entry in family.merged}
    made = []
    for batch in stream.batches(family.merged, dtypes, most=TOGETHER):
        jobs, others = stream.decided(batch, decide, dtypes)
        made.append((stream.launched(jobs), len(jobs)))
        for reader, decisions, outcome in others:
            for _, _, values in reader.merged(decisions, outcome):
                values.bfloat16()
    for merged, count in made:
        merged.reports(count)


def recipe_of(
    method: str,
    base: Path,
    experts: Sequence[Path],
    fresh: Iterator[int],
    dtype: str = "bfloat16",
) -> Recipe:
    """A recipe that no run before had."""
    knob = MOVED.get(method, "density")
    values = dict(RECIPES[method])
    if method in DENSITIES:
        values["density"] = DENSITIES[method]
    values[knob] += 1e-4 * next(fresh)
    chosen = experts[:1] if method in ONE_EXPERT else experts
    return recipes.build(
        method=method, base=str(base), models=[(str(e), {}) for e in chosen], parameters=values,
        dtype=dtype,
    )  # fmt: skip


def writes_the_same(method: str, models: Sequence[Path], out: Path, device: str) -> bool:
    """True where a merge by kernels writes the bytes of one by the CPU.

    Interpreted kernels cut numbers off where a GPU rounds them to 16 bits, so on a CPU the output
    is float32.
    """
    base, *experts = models
    dtype = "float32" if device == "cpu" else "bfloat16"
    recipe = recipe_of(method, base, experts, itertools.count(1), dtype)
    digests = set()
    for where, engine in (("cpu", None), (device, KernelStream)):
        merge(recipe, out, device=where, engine=engine, overwrite=True)
        whole = b"".join(file.read_bytes() for file in sorted(out.glob("*.safetensors")))
        digests.add(hashlib.sha256(whole).hexdigest())
    return len(digests) == 1


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


def timed(work: Callable[[], object], device: str, runs: int) -> list[float]:
    """Seconds of a piece of work, the first time and `runs` times more."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times = []
    for _ in range(runs + 1):
        wait()
        started = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - started)
    return times


def measure(models: Sequence[Path], methods: Sequence[str], device: str, runs: int) -> None:
    """Prints the table of one family."""
    base, *experts = models
    bandwidth = copy_bandwidth(device, (1 << 30) if device.startswith("cuda") else (1 << 24))
    print(f"copy: {bandwidth / 1e9:.0f} GB/s\n")
    print("| method | first, s | again, ms | floor, ms | of copy bandwidth | x TIES |")
    print("|---|---|---|---|---|---|")
    fresh = itertools.count(1)
    kept, ties = None, None
    for method in sorted(methods, key=lambda one: (one in ONE_EXPERT, one != YARDSTICK)):
        build = partial(recipe_of, method, base, experts, fresh)
        family = open_recipe(build())
        if kept is None or kept.key != family_key(family):
            kept = None  # the memory is needed
            kept = KeptFamily(family, device)
        first, *later = timed(partial(remerge, build, family, kept), device, runs)
        again = statistics.median(later)
        ties = again if method == YARDSTICK else ties
        read = READS.get(method, 1) * resident_bytes(family)
        moved = read + 2 * sum(entry.numel for entry in family.merged)
        ratio = "-" if ties is None else f"{again / ties:.2f}"
        print(
            f"| {method} | {first:.2f} | {1000 * again:.2f} | {1000 * moved / bandwidth:.2f} "
            f"| {moved / again / bandwidth:.0%} | {ratio} |", flush=True,
        )  # fmt: skip
    family = open_recipe(recipe_of(YARDSTICK, base, experts, fresh))
    kept = None
    (loaded,) = timed(lambda: KeptFamily(family, device), device, 0)
    kept = KeptFamily(family, device)
    scans = [
        statistics.median(timed(partial(scan, family, device=device, source=source), device, 2)[1:])
        for source in (None, kept)
    ]
    reading = resident_bytes(family) / bandwidth
    print(
        f"\nscan of the files: {scans[0]:.2f} s, loading them: {loaded:.2f} s\n"
        f"scan of the device's memory: {scans[1]:.2f} s, reading that: {reading:.4f} s", flush=True,
    )  # fmt: skip


def _interpret() -> None:
    """Kernels run as Python: that takes time by the program, so a few do much each."""
    os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are declared
    from merging.gpu import drawing_kernels, order, triton_kernels, weighing_kernels

    for kernels in (triton_kernels, drawing_kernels, weighing_kernels):
        kernels.BLOCK = 1 << 13
    triton_kernels.SETTLED = triton_kernels.MENDED = order.NEAR


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SHAPES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=RECIPES)
    parser.add_argument("--write", action="store_true", help="whole merges too")
    args = parser.parse_args()
    interpreted = args.device == "cpu"
    if interpreted:
        _interpret()
    elif not torch.cuda.is_available():
        print("no CUDA GPU is present; --device cpu runs the same code", file=sys.stderr)
        return 2
    else:
        print(torch.cuda.get_device_name())
    small = "tiny" if interpreted else "124.7m"
    families = {
        size: make_family(SHAPES[size], BUILD / f"{size}-family-{args.device}", device=args.device)
        for size in (small, *(args.sizes or ([small] if interpreted else ["1.1b", "3.2b"])))
    }
    out = BUILD / f"merged-{args.device}"
    for method in args.methods:
        same = writes_the_same(method, families[small], out, args.device)
        print(f"{method}: {'the bytes of the CPU' if same else 'OTHER BYTES'}", flush=True)
    for size in args.sizes or list(families)[not interpreted :]:
        print(f"\n{size}, base and {len(families[size]) - 1} experts, bfloat16")
        measure(families[size], args.methods, args.device, args.runs)
        for method in args.methods if args.write else ():
            base, *experts = families[size]
            build = partial(recipe_of, method, base, experts, itertools.count(1))
            lines = whole_merges(build, out, [args.device, "cpu"])
            print(f"{method}, written: {', '.join(lines)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
