"""Times whole processes, in turn, with the operating system's own accounting."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One finished process: wall and CPU seconds, peak resident bytes."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


WATCH = Path(__file__).with_name("watch.py")


def run(command: Sequence[str | Path], log: Path | None = None) -> Run:
    """Runs a command to its end. Raises RuntimeError with its output if it fails."""
    log = log or Path(os.devnull)
    watch = [sys.executable, "-S", str(WATCH), str(log), *map(str, command)]
    report = subprocess.run(watch, check=True, stdout=subprocess.PIPE, text=True).stdout
    code, wall, cpu, peak = report.split()
    if int(code):
        text = log.read_text(errors="replace")[-2000:] if log != Path(os.devnull) else ""
        raise RuntimeError(f"{command} ended with {code}\n{text}")
    return Run(float(wall), float(cpu), int(peak))


def in_turn(
    commands: Mapping[str, Sequence[str | Path]],
    *,
    runs: int,
    warm: int = 1,
    before: Callable[[str], None] = lambda name: None,
) -> dict[str, list[Run]]:
    """Runs all commands in turn, `runs` times and before that `warm` times for nothing.

    Args:
        before: called before each run with the command's name, outside the timing.
    """
    results: dict[str, list[Run]] = {name: [] for name in commands}
    for turn in range(-warm, runs):
        for name, command in commands.items():
            before(name)
            finished = run(command)
            print(f"{name}: {finished.wall_s:.2f} s", file=sys.stderr)
            if turn >= 0:
                results[name].append(finished)
    return results


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def ratio(over: Sequence[Run], under: Sequence[Run]) -> float:
    """Median of the wall-time ratios, pair by pair."""
    return median([a.wall_s / b.wall_s for a, b in zip(over, under, strict=True)])
