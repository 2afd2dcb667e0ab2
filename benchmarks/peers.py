"""Amalgam against mergekit and against the floor: `python -m benchmarks.peers [--size 1.1b]`.

Makes the family, installs mergekit 0.1.5 into an environment of its own, runs every program as a
whole process on warm files, in turn, and prints a table: wall and CPU seconds, peak memory, ratio
to mergekit (how many times faster) and to the floor (how many times slower than copying).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import yaml

from benchmarks.family import SHAPES, make_family
from benchmarks.measure import Run, in_turn, median, ratio

BUILD = Path("build/benchmarks")
MERGEKIT = "mergekit==0.1.5"
RECIPES: dict[str, dict] = {
    "linear": {"weight": 0.3},
    "task_arithmetic": {"weight": 0.4},
    "ties": {"weight": 1.0, "density": 0.2},
    "dare_ties": {"weight": 1.0, "density": 0.2},
    "dppa": {"density": 0.2, "amplification": [1.7, 1.4, 1.1, 1.0]},
    "pcb": {"weight": 1.0},
    "slerp": {"t": 0.4},
    "model_stock": {},
    "breadcrumbs": {"weight": 1.0, "density": 0.2, "gamma": 0.01},
    "della": {"weight": 1.0, "density": 0.5, "epsilon": 0.1},
    "sce": {"select_topk": 0.3},
    "nearswap": {"t": 0.001},
    "emr": {},
    "iso_c": {},
}
PER_MODEL = ("weight", "density", "gamma", "epsilon", "amplification")
ONE_EXPERT = ("slerp", "nearswap")
NO_BASE = ("linear",)
PEER_METHODS = (
    "linear",
    "task_arithmetic",
    "ties",
    "dare_ties",
    "slerp",
    "model_stock",
    "breadcrumbs",
    "della",
    "sce",
    "nearswap",
)


def mergekit_program() -> Path:
    """mergekit's command, installed on first use."""
    folder = BUILD / "mergekit"
    program = folder / "bin" / "mergekit-yaml"
    if not program.exists():
        venv.create(folder, with_pip=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, MERGEKIT], check=True)
    return program


def write_recipe(method: str, models: list[Path], path: Path) -> Path:
    """Writes the recipe of one method, the same file for both programs."""
    base, *experts = (str(folder.resolve()) for folder in models)
    own = {key: value for key, value in RECIPES[method].items() if key in PER_MODEL}
    experts = experts[:1] if method in ONE_EXPERT else experts
    document: dict = {
        "merge_method": method,
        "models": [{"model": e, "parameters": own} for e in experts],
        "parameters": {key: value for key, value in RECIPES[method].items() if key not in own},
        "dtype": "bfloat16",
    }
    if method not in NO_BASE:
        document["base_model"] = base
    path.write_text(yaml.safe_dump(document))
    return path


def compare(
    method: str, models: list[Path], runs: int, warm: int, with_peer: bool
) -> dict[str, list[Run]]:
    """Runs one method on every program in turn."""
    out = BUILD / "out"
    recipe = write_recipe(method, models, BUILD / f"{method}.yaml")
    commands: dict[str, list] = {
        "floor": [sys.executable, "-m", "benchmarks.floor", *models, "--out", BUILD / "floor.bin"],
        "amalgam": [sys.executable, "-m", "merging", "merge", recipe, out, "--device", "cpu"],
    }
    if with_peer and method in PEER_METHODS:
        commands["mergekit"] = [mergekit_program(), recipe, out, "--quiet"]
    clear = lambda name: shutil.rmtree(out, ignore_errors=True)  # noqa: E731
    return in_turn(commands, runs=runs, warm=warm, before=clear)


def row(method: str, results: dict[str, list[Run]]) -> dict:
    """One line of the table."""
    ours = results["amalgam"]
    line = {
        "method": method,
        "wall_s": median([r.wall_s for r in ours]),
        "cpu_s": median([r.cpu_s for r in ours]),
        "peak_mb": median([r.peak_bytes / 1e6 for r in ours]),
        "floor_s": median([r.wall_s for r in results["floor"]]),
        "times_floor": ratio(ours, results["floor"]),
    }
    if "mergekit" in results:
        line["mergekit_s"] = median([r.wall_s for r in results["mergekit"]])
        line["mergekit_mb"] = median([r.peak_bytes / 1e6 for r in results["mergekit"]])
        line["times_faster"] = ratio(results["mergekit"], ours)
    return line


def table(size: str, experts: int, lines: list[dict]) -> str:
    """The lines as Markdown."""
    head = (
        f"{size}, base + {experts} experts, bfloat16\n\n"
        "| method | wall s | CPU s | peak MB | x floor | mergekit s | mergekit MB | x faster |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    rows = []
    for line in lines:
        peer = "| - | - | - |"
        if "times_faster" in line:
            peer = (
                f"| {line['mergekit_s']:.1f} | {line['mergekit_mb']:.0f} "
                f"| {line['times_faster']:.1f} |"
            )
        rows.append(
            f"| {line['method']} | {line['wall_s']:.2f} | {line['cpu_s']:.2f} "
            f"| {line['peak_mb']:.0f} | {line['times_floor']:.1f} {peer}"
        )
    return head + "\n".join(rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="124.7m", choices=SHAPES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm", type=int, default=1, help="runs before those that count (1)")
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--family", type=Path, help="a family already made")
    parser.add_argument("--no-mergekit", action="store_true")
    args = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    home = args.family or BUILD / f"{args.size}-family"
    models = make_family(SHAPES[args.size], home, args.experts)
    lines = []
    for method in args.methods:
        lines.append(
            row(method, compare(method, models, args.runs, args.warm, not args.no_mergekit))
        )
        print(table(args.size, args.experts, lines), flush=True)
    (BUILD / f"{args.size}.json").write_text(json.dumps(lines, indent=2))


if __name__ == "__main__":
    main()
