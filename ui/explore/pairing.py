"""What goes together: a choice on one axis may set the other, and leave experts out.

A blend takes whole models: nothing is pruned before it, and some take few of them. Whatever is
chosen leads to what can be planned; what was set aside comes back with the next choice that takes
it. Pure functions of what is chosen, from the methods' declarations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from merging.declarations.methods import Blend, Consensus, goes_with
from merging.methods import CONSENSUS, PRUNERS, RULES

NOTHING = next(pruner.id for pruner in PRUNERS.values() if not pruner.prunes)
_FIRST = next(iter(CONSENSUS))


@dataclass(frozen=True)
class Choice:
    """What the controls say of both axes.

    Attributes:
        prune, consensus: ids of a pruner and of a rule.
        experts: ids of those chosen, in the order on offer.
    """

    prune: str
    consensus: str
    experts: tuple[str, ...]


@dataclass(frozen=True)
class Aside:
    """What choices have set aside.

    Attributes:
        prune: the pruner that a blend took the place of; "" where none did.
        consensus: the rule chosen last that takes pruned changes.
        experts: those chosen before some were left out; empty where none were.
        rest: those that stayed then.
    """

    prune: str = ""
    consensus: str = _FIRST
    experts: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()


def choice_of(values: Mapping[str, Any]) -> Choice:
    """What the controls' values say of it."""
    return Choice(values["prune"], values["consensus"], tuple(values["experts"] or ()))


def values_of(choice: Choice) -> dict[str, Any]:
    """Values of the controls."""
    return {
        "prune": choice.prune,
        "consensus": choice.consensus,
        "experts": list(choice.experts),
    }


def fitted(choice: Choice) -> Choice:
    """The nearest that can be planned: the rule stays, the last of too many experts are left out.

    Too few experts stay too few.
    """
    rule = RULES[choice.consensus]
    prune = choice.prune if goes_with(PRUNERS[choice.prune], rule) else NOTHING
    return Choice(prune, rule.id, choice.experts[: _most(rule, len(choice.experts))])


def on_rule(choice: Choice, aside: Aside) -> tuple[Choice, Aside]:
    """After a rule was chosen, or both by a preset: what it leads to, and what is set aside."""
    rule = RULES[choice.consensus]
    prune = choice.prune
    if isinstance(rule, Consensus):
        prune = aside.prune if prune == NOTHING and aside.prune else prune
        aside = replace(aside, prune="", consensus=rule.id)
    elif PRUNERS[prune].prunes:
        aside = replace(aside, prune=prune)
    return _with_experts(replace(choice, prune=prune), aside)


def on_pruner(choice: Choice, aside: Aside) -> tuple[Choice, Aside]:
    """After a pruner was chosen: a blend gives way to the rule before it."""
    if not goes_with(PRUNERS[choice.prune], RULES[choice.consensus]):
        choice = replace(choice, consensus=aside.consensus)
    return _with_experts(choice, replace(aside, prune=""))


def _with_experts(choice: Choice, aside: Aside) -> tuple[Choice, Aside]:
    """The experts that fit, all of those set aside where they are taken again."""
    is_untouched = aside.experts and choice.experts == aside.rest
    whole = aside.experts if is_untouched else choice.experts
    fit = fitted(replace(choice, experts=whole))
    if fit.experts == whole:
        return fit, replace(aside, experts=(), rest=())
    return fit, replace(aside, experts=whole, rest=fit.experts)


def _most(rule: Consensus | Blend, count: int) -> int:
    """The most experts, up to `count`, that a rule takes; all where it takes no such number."""
    if not isinstance(rule, Blend):
        return count
    return next((most for most in range(count, 0, -1) if rule.takes(most)), count)


def remark(before: Choice, after: Choice, names: Mapping[str, str]) -> str:
    """What a choice has set besides, in a line; "" where nothing.

    Args:
        before: as it was chosen.
        after: what it led to.
        names: what experts are called, by id.
    """
    rule = RULES[after.consensus]
    lines = []
    if before.consensus != after.consensus:
        blend = RULES[before.consensus].title
        lines.append(f"{blend} takes no pruned changes: {rule.title} combines instead.")
    if after.prune != before.prune and after.prune == NOTHING:
        lines.append(f"{rule.title} combines whole models: nothing is pruned before it.")
    elif after.prune != before.prune:
        lines.append(f"Pruned by {PRUNERS[after.prune].title} again.")
    left = [names[one] for one in before.experts if one not in after.experts]
    back = [names[one] for one in after.experts if one not in before.experts]
    if left:
        amount = "one expert" if len(after.experts) == 1 else f"{len(after.experts)} experts"
        lines.append(f"{rule.title} takes {amount}: {_listed(left)} left out.")
    if back:
        lines.append(f"{_listed(back)} back.")
    return " ".join(lines)


def _listed(names: Sequence[str]) -> str:
    """ "a is", "a and b are", "a, b and c are"."""
    *most, last = names
    return f"{', '.join(most)} and {last} are" if most else f"{last} is"
