"""What a method is: its declaration, what it measures and what it decides.

There are three kinds. A *pruner* says which of every expert's changes stay. A *consensus* combines
the pruned changes of all experts. A *blend* combines whole models, and nothing is pruned before it.
Pruning and consensus are independent; the name of a merge method ("ties", "dare_linear") is a
*preset*: a choice of each, or a blend, and defaults. The recipe reader, the engines, the plan, the
screens and the README's table are built from these declarations alone.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from merging.checkpoints import Entry
from merging.declarations.knobs import Knob
from merging.declarations.laws import Law
from merging.declarations.measures import Passes, Reader
from merging.declarations.retention import Retention
from merging.declarations.values import Recipe
from merging.instructions import Combination, Decision, Outcome

GROUPS = {
    "sums": "Average and sums",
    "elect": "Prune and elect",
    "spheres": "Directions and spheres",
    "subspaces": "Subspaces",
    "apart": "Keep apart",
}
"""Groups of presets by id, in the order in which screens and the README list them."""

TORCH_BYTES = 230_000_000
"""What torch takes once it is loaded."""

_ALWAYS = {"kept", "combine", "join"}  # what words may name besides the knobs


@dataclass(frozen=True)
class Evidence:
    """What a method has measured over the whole model before it decides tensor by tensor.

    Attributes:
        values: whatever its `decide` needs.
        notes: what the user should know of this family.
        retention: where one cut is made over the whole model, what is kept of each expert's
            changes.
    """

    values: Any = None
    notes: tuple[str, ...] = ()
    retention: tuple[Retention, ...] = ()


@dataclass(frozen=True)
class Pruned:
    """What becomes of every expert's changes of one tensor.

    Attributes:
        count: (reader) -> how many of them stay; empty where that is told for the whole model, or
            not counted. Called once the merge is under way: on a GPU counting waits for the device.
    """

    decisions: Sequence[Decision]
    count: Callable[[Any], Sequence[Retention]] = lambda reader: ()


@dataclass(frozen=True)
class Pruning:
    """A pruner at work on one family: `pruning(reader)` decides a tensor."""

    law: Law
    decide: Callable[[Reader], Pruned]

    def __call__(self, reader: Reader) -> Sequence[Decision]:
        return self.decide(reader).decisions


@dataclass(frozen=True)
class Shares:
    """One change for all tasks, and what each takes of it: task t is base + factor * M_t * change.

    Attributes:
        factors: one per expert.
        split: (reader, the pruned changes of one chunk) -> the change, float32, and M_t as bool of
            every expert, all of the chunk's shape.
    """

    factors: Sequence[float]
    split: Callable[[Any, Sequence[Any]], tuple[Any, Sequence[Any]]]


def _no_passes(recipe: Recipe) -> int:
    return 0


def _nothing(recipe: Recipe, *_: Any) -> Evidence:
    return Evidence()


def _no_doubt(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    return ()


def _no(recipe: Recipe) -> bool:
    return False


def _no_memory(recipe: Recipe, entries: Sequence[Entry]) -> int:
    return 0


def in_torch(recipe: Recipe, entries: Sequence[Entry]) -> int:
    """`memory` of a method whose steps run through torch over chunks or rows."""
    return TORCH_BYTES


def _no_remarks(values: Any) -> Sequence[str]:
    return ()


def _not_added(document: Mapping[str, Any], models: Sequence[str]) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Method:
    """What the three kinds share.

    Attributes:
        id: the word in a recipe ("dynamic", "ties").
        title, summary: for a screen: a name, and a sentence.
        formula: what it computes, in plain text.
        paper, url: where it comes from; empty where there is no paper.
        words: what a recipe does, in a sentence. In braces it names knobs, or `kept` (what a pruner
            keeps), `combine` ("add them up") and `join` ("add up").
        knobs: its parameters.
        passes: how many passes over the whole model `measure` makes, for the progress.
        check: raises RecipeError where a recipe cannot work, and returns remarks. Called with no
            entries when a recipe is read, and with the tensors to be merged once they are there.
        place: where screens list it among its kind, small first.
        memory: (recipe, tensors to be merged) -> bytes that it needs at its peak beside what the
            loops need: where steps run through torch, torch itself (TORCH_BYTES) and what they
            hold.
        afterwards: (evidence's values) -> remarks, once all tensors are merged.
        unpredicted: what the plan, which sees sketches and no weights, cannot foresee; a sentence.
        uniform: True where, if an engine finds cuts itself, no more than a tensor's size and its
            values of the knobs tell what becomes of it: tensors alike then share a decision.
    """

    kind: ClassVar[str]
    id: str
    title: str
    summary: str
    formula: str
    words: str
    paper: str = ""
    url: str = ""
    knobs: tuple[Knob, ...] = ()
    passes: Callable[[Recipe], int] = _no_passes
    check: Callable[[Recipe, Sequence[Entry]], Sequence[str]] = _no_doubt
    memory: Callable[[Recipe, Sequence[Entry]], int] = _no_memory
    afterwards: Callable[[Any], Sequence[str]] = _no_remarks
    place: int = 100
    unpredicted: str = ""
    uniform: Callable[[Recipe], bool] = _no

    def __post_init__(self) -> None:
        for part in ("id", "title", "summary", "formula", "words"):
            if not getattr(self, part):
                raise ValueError(f"the method {self.id or '?'} lacks its {part}")
        names = {name for _, name, _, _ in string.Formatter().parse(self.words) if name}
        if unknown := names - {knob.name for knob in self.knobs} - _ALWAYS:
            raise ValueError(f"the words of {self.id} name {sorted(unknown)}, which is no knob")


@dataclass(frozen=True, kw_only=True)
class Pruner(Method):
    """Which of every expert's changes stay, times what.

    Attributes:
        law: what it does to magnitudes, as data: the plan and the browser execute it.
        decide: (recipe, reader, evidence's values) -> what becomes of one tensor's changes.
        measure: (recipe, passes) -> what it needs to know of the whole model.
    """

    kind: ClassVar[str] = "prune"
    law: Law
    decide: Callable[[Recipe, Any, Any], Pruned]
    measure: Callable[[Recipe, Any], Evidence] = _nothing

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = {"density"} if self.law.order != "all" else set()
        needed |= {self.law.skip} if self.law.skip else set()
        if missing := needed - {knob.name for knob in self.knobs}:
            raise ValueError(f"the law of {self.id} needs the knob {sorted(missing)[0]}")

    @property
    def prunes(self) -> bool:
        """False of the one that keeps every change as it is."""
        return bool(self.knobs)


@dataclass(frozen=True, kw_only=True)
class Consensus(Method):
    """How pruned changes become one.

    Attributes:
        decide: (recipe, reader, decisions, evidence's values) -> how one tensor's changes combine.
        measure: (recipe, passes, pruning) -> what it needs to know of the whole model.
        measures: True where a recipe makes it look at pruned changes, so that cuts must be known.
        linear: True where the merged change is linear in the weights, unless `normalize` is on.
        needs_all: True where a model of weight 0 still counts, so that none can be missing.
        implied: mergekit's switches that it always has, where they are no knobs of its own.
        share: (recipe, passes, pruning) -> what all tasks have in common and what is each one's, of
            a method that makes a model per task: what a container holds.
        group: of GROUPS, where no preset that combines by it says one.
    """

    kind: ClassVar[str] = "consensus"
    decide: Callable[[Recipe, Any, Sequence[Decision], Any], Combination]
    measure: Callable[[Recipe, Any, Pruning], Evidence] = _nothing
    measures: Callable[[Recipe], bool] = _no
    linear: bool = False
    needs_all: bool = False
    implied: Mapping[str, bool] = field(default_factory=dict)
    share: Callable[[Recipe, Any, Pruning], Shares] | None = None
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Blend(Method):
    """How whole models become one.

    Attributes:
        decide: (recipe, reader, evidence's values) -> one tensor of the result.
        measure: (recipe, passes) -> what it needs to know of the whole model.
        base: "point": one of the models that are blended, where it is listed or `adds_base` says
            so; "origin": changes are counted from it, and it must be named; "either": it is an
            origin where it is named (`Recipe.origin`), and no base is needed.
        adds_base: (the recipe's document, names of models) -> True where a base that is not listed
            among the models is one of them all the same.
        least, most: how many models it takes, a listed base counted where it is a point.
        group: as of a consensus.
    """

    kind: ClassVar[str] = "blend"
    decide: Callable[[Recipe, Any, Any], Outcome]
    measure: Callable[[Recipe, Any], Evidence] = _nothing
    base: Literal["point", "origin", "either"] = "point"
    adds_base: Callable[[Mapping[str, Any], Sequence[str]], bool] = _not_added
    least: int = 1
    most: int | None = None
    group: str = ""

    def takes(self, experts: int) -> bool:
        """Whether it combines so many models beside a base that is named and not among them."""
        names = [str(index) for index in range(experts)]
        count = experts + self.adds_base({"base_model": "base"}, names)
        return self.least <= count and (self.most is None or count <= self.most)


def goes_with(pruner: Pruner, rule: Consensus | Blend) -> bool:
    """Whether a recipe may have both: nothing is pruned before whole models are blended."""
    return not (isinstance(rule, Blend) and pruner.prunes)


@dataclass(frozen=True)
class Preset:
    """A merge method by its usual name: a pruner and a consensus, or a blend.

    Attributes:
        id: the name in recipes ("merge_method").
        group: of GROUPS.
        summary: what it does to a change, in a sentence.
        use_when: one line of advice.
        consensus: the id of a consensus, or of a blend.
        place: where it is listed in its group, small first.
        defaults: values that differ from the knobs' own defaults; those of mergekit's methods are
            mergekit's.
        shown: values that a screen begins with, where a recipe's default would show nothing.
        opening: of the one preset that the first screen shows, what it shows there instead.
    """

    id: str
    title: str
    group: str
    summary: str
    use_when: str
    consensus: str
    prune: str = "none"
    place: int = 100
    defaults: Mapping[str, Any] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    opening: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ValueError(f"the preset {self.id} is in no group: {', '.join(GROUPS)}")


__all__ = [
    "GROUPS",
    "Blend",
    "Consensus",
    "Evidence",
    "Method",
    "Passes",
    "Preset",
    "Pruned",
    "Pruner",
    "Pruning",
    "Reader",
    "Retention",
    "Shares",
    "goes_with",
]
