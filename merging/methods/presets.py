"""Merge methods by their usual names: points on the two axes."""

from merging.declarations.knobs import Preset

PRESETS = (
    Preset(
        "linear", "Average", "none", "mean",
        "The weighted mean of the models themselves; no base needed.",
        "The experts are close to each other: checkpoints of one run, or one task.",
    ),
    Preset(
        "task_arithmetic", "Task arithmetic", "none", "sum",
        "Adds every expert's change to the base, scaled.",
        "First thing to try; lower the strength if answers break.",
    ),
    Preset(
        "magnitude", "Magnitude pruning", "magnitude", "sum",
        "Keeps each expert's largest changes and adds them.",
        "You want small edits that do not get in each other's way.",
        shown={"density": 0.2},
    ),
    Preset(
        "ties", "TIES", "magnitude", "ties",
        "Keeps the largest changes, elects a sign, averages those that agree.",
        "Several experts change the same parameters in opposite directions.",
        shown={"density": 0.2},
    ),
    Preset(
        "dare_linear", "DARE", "random", "sum",
        "Drops changes at random, rescales the rest, adds them.",
        "Changes are tiny (mean below 0.002) and many.",
        shown={"density": 0.5},
    ),
    Preset(
        "dare_ties", "DARE + TIES", "random", "ties",
        "Drops changes at random, then elects signs.",
        "As DARE, with several experts that disagree.",
        {"normalize": False},
        {"density": 0.5},
    ),
    Preset(
        "dppa", "DPPA", "dynamic", "sum",
        "Prunes by magnitude with densities per layer and linear, amplifies what is left.",
        "Experts drifted far from the base and must be pruned hard.",
        {"density": 0.2, "amplification": (1.0, 1.0)},
    ),
    Preset(
        "pcb", "PCB-Merging", "none", "pcb",
        "Balances how parameters compete within and between experts.",
        "Experts of different strength share one model.",
        {"scope": "model"},
    ),
)  # fmt: skip
