"""A scan against reading the same bytes: `python -m benchmarks.scanning [--size 1.1b]`.

Whole processes on warm files, in turn: `python -m merging inspect` (which reads every tensor and
keeps nothing between runs), and plain reads of the same files into one buffer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.family import SHAPES, make_family
from benchmarks.measure import in_turn, median, ratio
from benchmarks.peers import BUILD


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="124.7m", choices=SHAPES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--family", type=Path, help="a family already made")
    args = parser.parse_args()
    models = make_family(SHAPES[args.size], args.family or BUILD / f"{args.size}-family")
    times = in_turn(
        {
            "read": [sys.executable, "-m", "benchmarks.floor", *models],
            "scan": [sys.executable, "-m", "merging", "inspect", *models, "--json"],
        },
        runs=args.runs,
    )
    scan = times["scan"]
    print(
        f"{args.size}: read {median([r.wall_s for r in times['read']]):.2f} s, "
        f"scan {median([r.wall_s for r in scan]):.2f} s "
        f"({median([r.cpu_s for r in scan]):.2f} s CPU, "
        f"peak {median([r.peak_bytes / 1e6 for r in scan]):.0f} MB), "
        f"{ratio(scan, times['read']):.1f} x reading"
    )


if __name__ == "__main__":
    main()
