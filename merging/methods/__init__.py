"""Every method: one file here each, found by being there.

A file declares METHODS (pruners, consensus rules, blends) and the PRESETS that give them their
usual names. What lacks a part is refused when it is imported.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from merging.declarations.knobs import Knob
from merging.declarations.methods import (
    GROUPS,
    Blend,
    Consensus,
    Method,
    Preset,
    Pruner,
)


def _modules() -> list[ModuleType]:
    names = sorted(info.name for info in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def collect(
    modules: Iterable[ModuleType],
) -> tuple[dict[str, Pruner], dict[str, Consensus], dict[str, Blend], dict[str, Preset]]:
    """Pruners, consensus rules, blends and presets by id, in the order of screens.

    Raises:
        TypeError: a module declares none of them.
        ValueError: an id is given twice, a preset names what is not there, or a rule is in no
            group.
    """
    methods: dict[str, Method] = {}
    presets: dict[str, Preset] = {}
    for module in modules:
        if not getattr(module, "METHODS", ()):
            raise TypeError(f"{module.__name__} declares no METHODS")
        for method in module.METHODS:
            if methods.setdefault(method.id, method) is not method:
                raise ValueError(f"{module.__name__}: the method {method.id} is there already")
        for preset in getattr(module, "PRESETS", ()):
            if presets.setdefault(preset.id, preset) is not preset:
                raise ValueError(f"{module.__name__}: the preset {preset.id} is there already")
    for preset in presets.values():
        _check(preset, methods)
    _check_shared_names(methods.values())
    rules = [method for method in methods.values() if isinstance(method, Consensus | Blend)]
    _in_groups(rules, presets.values())
    if sum(bool(preset.opening) for preset in presets.values()) > 1:
        raise ValueError("one preset opens the first screen")
    groups = list(GROUPS)
    in_order = sorted(methods.values(), key=lambda method: (method.place, method.title))
    return (
        {method.id: method for method in in_order if isinstance(method, Pruner)},
        {method.id: method for method in in_order if isinstance(method, Consensus)},
        {method.id: method for method in in_order if isinstance(method, Blend)},
        {
            preset.id: preset
            for preset in sorted(
                presets.values(), key=lambda one: (groups.index(one.group), one.place, one.title)
            )
        },
    )


def _check(preset: Preset, methods: dict[str, Method]) -> None:
    pruner, rule = methods.get(preset.prune), methods.get(preset.consensus)
    if not isinstance(pruner, Pruner) or not isinstance(rule, Consensus | Blend):
        raise ValueError(
            f"the preset {preset.id} names {preset.prune} and {preset.consensus}: a pruner and a "
            "rule are needed"
        )
    knobs = {knob.name for knob in (*pruner.knobs, *rule.knobs)}
    if unknown := {*preset.defaults, *preset.shown, *preset.opening} - knobs:
        raise ValueError(f"the preset {preset.id} sets {sorted(unknown)}, which is no knob")


def _check_shared_names(methods: Iterable[Method]) -> None:
    """A knob that a pruner and a consensus both have is one, so it must be of one kind."""
    of_pruners: dict[str, tuple[str, Knob]] = {}
    everything = sorted(methods, key=lambda method: method.kind, reverse=True)  # pruners first
    for method in everything:
        for knob in method.knobs:
            if isinstance(method, Pruner):
                of_pruners.setdefault(knob.name, (method.id, knob))
            elif isinstance(method, Consensus) and knob.name in of_pruners:
                other, first = of_pruners[knob.name]
                if (first.per_model, first.scheduled) != (knob.per_model, knob.scheduled):
                    raise ValueError(
                        f"{method.id} and {other} both have a knob {knob.name}, of two kinds"
                    )


def _in_groups(
    rules: Iterable[Consensus | Blend], presets: Iterable[Preset]
) -> dict[str, list[Consensus | Blend]]:
    """Rules by group in the order of GROUPS: that of the first preset that combines by one, or
    which it says itself. Raises ValueError where one is in none."""
    of_presets: dict[str, str] = {}
    for preset in presets:
        of_presets.setdefault(preset.consensus, preset.group)
    groups: dict[str, list[Consensus | Blend]] = {group: [] for group in GROUPS}
    for rule in rules:
        group = of_presets.get(rule.id, rule.group)
        if group not in groups:
            raise ValueError(f"{rule.id} is in no group: {', '.join(GROUPS)}")
        groups[group].append(rule)
    return groups


PRUNERS, CONSENSUS, BLENDS, PRESETS = collect(_modules())
RULES: dict[str, Consensus | Blend] = {**CONSENSUS, **BLENDS}
"""What combines: consensus rules and blends."""


RULES_BY_GROUP = _in_groups(RULES.values(), PRESETS.values())
"""What combines, by group in the order of screens."""

__all__ = ["BLENDS", "CONSENSUS", "PRESETS", "PRUNERS", "RULES", "RULES_BY_GROUP", "collect"]
