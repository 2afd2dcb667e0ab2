"""Tensors compared: layers that only one model has, shapes, and the account in few lines."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from merging.checkpoints import Checkpoint, Entry, Family
from merging.checkpoints.aliases import renamed
from merging.checkpoints.family import AS_BASE
from merging.checkpoints.layout import depths, is_beside_text, is_tower, is_vocabulary, stack_of
from merging.kinship.problem import Problem, Severity, called, listed

_ADAPTER = re.compile(r"\.(?:lora_[AB]|lora_embedding_[AB]|base_layer|modules_to_save)(?:\.|$)")
_ONE_BY_ONE = 3  # tensors of one reason that are told each by itself


def adapters(models: Sequence[Checkpoint]) -> list[Problem]:
    """Models whose files hold an adapter that was not merged into them."""
    problems = []
    for model in models:
        parts = [name for name in model.tensors if _ADAPTER.search(name)]
        if parts:
            problems.append(
                Problem(
                    "error",
                    model.name,
                    f"holds an adapter beside its own tensors ({listed(parts, 1)}); merge it into "
                    "the model first (peft: merge_and_unload), save that and give its folder",
                    "names",
                )
            )
    return problems


def layers(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[Problem]:
    """Experts whose stacks have another number of layers than the base's.

    Args:
        experts: under the base's names.
    """
    ours = depths(base.tensors)
    problems = []
    for expert in experts:
        theirs = depths(expert.tensors)
        for stack, count in ours.items():
            other = theirs.get(stack)
            if other is None or other == count:
                continue
            asked = expert.config.get("num_hidden_layers")
            if asked is not None and asked == base.config.get("num_hidden_layers"):
                if other >= asked and not is_tower(stack):
                    continue  # further layers that predict tokens ahead, which some files lack
                problems.append(
                    Problem(
                        "error",
                        expert.name,
                        f"{expert.name} holds {other} layers of {stack}, "
                        f"{called(base.name)} {count}; copy or download it again",
                        "layers",
                    )
                )
                continue
            problems.append(
                Problem(
                    "error",
                    expert.name,
                    f"{expert.name} has {other} layers, {called(base.name)} {count} ({stack}): not "
                    "fine-tuned from this base; choose experts that were",
                    "layers",
                )
            )
    return problems


def account(family: Family) -> list[Problem]:
    """What the account of a family says beyond plain merging, grouped by reason."""
    wrong = [entry for entry in family.account if _has_wrong_shape(family, entry)]
    holes = _holes(family)
    problems = [_wrong_shapes(wrong)] if wrong else []
    problems += [_incomplete(family, holes)] if holes else []
    groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    errors = {entry.name for entry in (*wrong, *holes)}
    for entry in family.account:
        if entry.reason and entry.is_parameter and entry.name not in errors:
            groups[(entry.status, entry.reason)].append(entry)
    for (status, reason), entries in groups.items():
        kind = "rows" if status == "merged" else "tensors"
        fate = status.replace("_", " ")
        harmless = _is_harmless(reason, entries)
        severity: Severity = "note" if harmless else "warning"
        if len(entries) <= _ONE_BY_ONE:
            problems += [Problem(severity, e.name, f"{fate}: {reason}", kind) for e in entries]
        else:
            names = listed(entry.name for entry in entries)
            problems.append(
                Problem(severity, "tensors", f"{len(entries)} {fate}: {reason}: {names}", kind)
            )
    return [*problems, *_renamed(family)]


def _holes(family: Family) -> list[Entry]:
    """What a layer of the base lacks, though its other layers and all experts have it: whoever
    loads such a model fills the place at random."""
    patterns = {_in_any_layer(name) for name in family.base.tensors}
    return [
        entry
        for entry in family.account
        if entry.status == "left_out"
        and entry.is_parameter
        and entry.place.layer is not None
        and _in_any_layer(entry.name) in patterns
        and all(entry.name in expert.tensors for expert in family.experts)
        and entry.name not in family.base.tensors
    ]


def _in_any_layer(name: str) -> tuple[str, str]:
    """A tensor's name without the number of its layer."""
    stack = stack_of(name) or ""
    return stack, name[len(stack) + 1 :].partition(".")[2]


def _incomplete(family: Family, holes: Sequence[Entry]) -> Problem:
    names = listed(entry.name for entry in holes)
    return Problem(
        "error",
        family.base.name,
        f"lacks {names}, which its other layers and all experts have; copy or download it again",
        "tensors",
    )


def _is_harmless(reason: str, entries: Sequence[Entry]) -> bool:
    """True for what is as it should be: what the config ties, what the recipe asks for, a tower
    for images or sound of which an expert of text has nothing."""
    if reason.startswith("missing in "):
        return all(is_beside_text(entry.name) for entry in entries)
    return reason.startswith("tied to ") or reason == AS_BASE


def _has_wrong_shape(family: Family, entry: Entry) -> bool:
    """True for a tensor that another shape keeps from being merged, unless it is one outside the
    layers that is only longer: positions, classes."""
    if entry.status != "copied" or not entry.reason.startswith("shape "):
        return False
    others = [
        expert.tensors[entry.name].shape
        for expert in family.experts
        if entry.name in expert.tensors
    ]
    longer = all(other[1:] == entry.shape[1:] for other in others)
    return entry.place.layer is not None or not longer or is_vocabulary(entry.name)


def _wrong_shapes(wrong: Sequence[Entry]) -> Problem:
    more = f"; so have {listed(entry.name for entry in wrong[1:])}" if len(wrong) > 1 else ""
    return Problem(
        "error",
        wrong[0].name,
        f"{wrong[0].reason}: it cannot be merged; choose experts fine-tuned from this base, or "
        f"list part of its name under keep_base: to leave it as the base has it{more}",
        "shape",
    )


def _renamed(family: Family) -> list[Problem]:
    problems = []
    for expert in family.experts:
        if pairs := renamed(expert):
            old, new = pairs[0]
            problems.append(
                Problem(
                    "note",
                    expert.name,
                    f"{len(pairs)} tensors have other names in the base: {old} is {new} there",
                    "names",
                )
            )
    return problems
