"""How long a merge takes to stop: `python -m benchmarks.stopping [--size 124.7m]`.

Starts `python -m merging merge` again and again, interrupts each at another moment of its run, and
prints the median and the worst time from the signal to the end of the process. Fails if anything
of the output is left.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.family import SHAPES, make_family
from benchmarks.measure import run
from benchmarks.peers import BUILD, RECIPES, write_recipe


def stopped_after(command: list[str], delay: float) -> float | None:
    """Seconds from an interrupt after `delay` seconds to the end; None if it was over before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        pass
    else:
        return None
    sent = time.perf_counter()
    process.send_signal(signal.SIGINT)
    status = process.wait()
    return time.perf_counter() - sent if status == 130 else None


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="124.7m", choices=SHAPES)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--method", default="ties", choices=RECIPES)
    args = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    models = make_family(SHAPES[args.size], BUILD / f"{args.size}-family")
    recipe = write_recipe(args.method, models, BUILD / f"{args.method}.yaml")
    times = []
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, "-m", "merging", "merge", str(recipe), str(out)]
        whole = run(command).wall_s
        first = 0.2  # before, the interpreter itself is being interrupted
        for number in range(args.stops):
            shutil.rmtree(out, ignore_errors=True)
            seconds = stopped_after(command, first + (whole - first) * number / args.stops)
            if seconds is not None:
                times.append(seconds)
                files = [path.name for path in Path(scratch).iterdir()]
                assert not files, files
    print(
        f"{args.method}, {args.size}: a merge of {whole:.1f} s, stopped at {len(times)} moments: "
        f"median {statistics.median(times):.2f} s, worst {max(times):.2f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
