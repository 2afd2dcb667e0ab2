"""How long a plan takes: `python -m benchmarks.planning`.

For the built-in family, and for one of 32 layers and 4 experts whose sketch is the built-in one's
repeated (a plan's cost depends on the number of tensors, not on their size). Medians of 50 plans.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import numpy as np

from merging import recipe as recipes
from merging.checkpoints import open_checkpoint, open_family, resolve
from merging.demo import DOMAINS
from merging.sketches.plan import plan
from merging.sketches.scan import BY_TENSOR, scan
from merging.sketches.sketch import FamilySketch, SketchedTensor

METHODS = {
    "task_arithmetic": {},
    "ties": {"density": 0.2},
    "dare_ties": {"density": 0.2},
    "dppa": {"density": 0.2, "amplification": [1.7, 1.4, 1.1, 1.0]},
    "pcb": {},
}


def built_in() -> FamilySketch:
    """The sketch of the built-in family."""
    names = [f"demo:{name}" for name in DOMAINS]
    models = [open_checkpoint(resolve(name), name) for name in ("demo:base", *names)]
    return scan(open_family(models[0], models[1:]))


def deeper(sketch: FamilySketch, layers: int) -> FamilySketch:
    """The sketch with its layers repeated until there are `layers`."""
    columns, tensors = [], []
    depth = 1 + max(t.layer for t in sketch.tensors if t.layer is not None)
    for repeat in range(layers // depth):
        for column, tensor in enumerate(sketch.tensors):
            if tensor.layer is None and repeat:
                continue
            layer = None if tensor.layer is None else tensor.layer + repeat * depth
            columns.append(column)
            tensors.append(
                SketchedTensor(
                    f"{repeat:02}.{tensor.name}",
                    layer,
                    tensor.module,
                    tensor.is_linear,
                    tensor.numel,
                    "",
                    layers,
                )
            )
    by_tensor = {name: getattr(sketch, name)[:, columns] for name in BY_TENSOR}
    return replace(
        sketch,
        tensors=tuple(tensors),
        dots=sketch.dots[:, :, columns],
        base_l2=sketch.base_l2[columns],
        **by_tensor,
    )


def milliseconds(method: str, sketch: FamilySketch, runs: int = 50) -> float:
    """Median time of one plan."""
    models = [(name, {}) for name in sketch.experts]
    recipe = recipes.build(
        method=method, base=sketch.base, models=models, parameters=METHODS[method]
    )
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        plan(recipe, sketch)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Prints the table."""
    small = built_in()
    large = deeper(small, 32)
    assert np.isfinite(large.l1).all()
    print("| method | built-in family, 4 layers, ms | 32 layers, ms |\n|---|---|---|")
    for method in METHODS:
        print(
            f"| {method} | {milliseconds(method, small):.1f} | {milliseconds(method, large):.1f} |"
        )


if __name__ == "__main__":
    main()
