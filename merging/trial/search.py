"""Search for a recipe's weights: one per expert, module and layer, learned on validation prompts.

The merged model is differentiable in its weights, so a few hundred steps of gradient descent find
what a search by trial needs thousands of merges for. As AdaMerging (arXiv 2310.02575, section 3.2,
layer-wise), but where that lowers the entropy of unlabelled answers, these prompts have answers,
and the loss is theirs.
"""

from __future__ import annotations

import math
import random
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from merging.checkpoints import Entry, Family, resolve
from merging.declarations.methods import Consensus
from merging.declarations.schedules import Rule, Schedule
from merging.declarations.values import value_at
from merging.demo.tasks import Task
from merging.errors import Cancelled, NotEnoughSpace, RecipeError
from merging.methods import PRUNERS, RULES
from merging.recipe import Recipe
from merging.run.preflight import open_recipe
from merging.trial.likelihood import IGNORED, Row, answer_logits, padded
from merging.trial.loading import load
from merging.trial.memory import batch_bytes, free_bytes, gigabytes
from merging.trial.model import Model
from merging.trial.placement import main_device
from merging.trial.turns import PromptError

Group = tuple[str, int | None]
"""Tensors that share a weight: (part of their names, layer); ("*", None) for the rest."""

STEPS, LEARNING_RATE, BATCH = 200, 0.02, 96
SMOOTHED = 10  # steps: each draws other prompts, so one loss alone says little
DECIMALS = 3
_PIECE = 1 << 22  # entries of a tensor that are merged at a time


@dataclass(frozen=True)
class SearchResult:
    """A search's result.

    Attributes:
        recipe: the recipe with the weights that were found.
        losses: mean cross-entropy (nats per answer token) of each step's prompts.
        steps: how many were asked for. Where fewer were made, the search was stopped, and the
            weights are those with the lowest mean loss of SMOOTHED steps.
    """

    recipe: Recipe
    losses: tuple[float, ...]
    steps: int

    @property
    def is_whole(self) -> bool:
        """False where the search was stopped."""
        return len(self.losses) == self.steps


def search(
    recipe: Recipe,
    tasks: Sequence[Task],
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    batch: int = BATCH,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float, float], None] | None = None,
    note: Callable[[str], None] | None = None,
    cancel: threading.Event | None = None,
) -> SearchResult:
    """Learns the weights of a task-arithmetic recipe, starting from those it has.

    The merged model and its gradients are held in float32, base and experts in their own type.

    Args:
        recipe: prune: none and consensus: sum, not normalized.
        tasks: validation prompts with answers; every step draws `batch` of them.
        learning_rate: Adam's; falls to a tenth over the steps.
        device: "auto" (CUDA where present and large enough), "cpu", "cuda" or "mps".
        progress: called with the steps that are done, also with parts of one, and the loss of
            the last whole step, NaN before it.
        note: told in words where memory allows fewer prompts at a time than `batch`; the result
            is the same.
        cancel: set it to stop; what was found so far is returned.

    Raises:
        RecipeError: another kind of recipe, a tensor that does not fit the base, or a loss that is
            not finite.
        PromptError: the base cannot read a prompt, or its answer does not fit behind it.
        NotEnoughSpace: the models do not fit into memory.
        Cancelled: `cancel` was set before the first step was made.
    """
    _check_recipe(recipe)
    family = open_recipe(recipe)
    main = _roomy(family, device)
    base = resolve(recipe.base, recipe.folder)
    model = load(base, torch.float32, str(main), name=recipe.base, stop=cancel)
    mixture = _Mixture(recipe, family, model.network)
    rows = _rows(model, tasks)
    size = _rows_at_a_time(model, rows, batch, note)
    _end_with(model.network, cancel)
    optimiser = torch.optim.Adam(mixture.weights.values(), lr=learning_rate)
    rng = random.Random(seed)
    losses: list[float] = []
    best = (math.inf, {group: weight.clone() for group, weight in mixture.weights.items()})
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * (1 - 0.9 * step / steps)
        mixture.merge()
        before = {group: weight.clone() for group, weight in mixture.weights.items()}
        tell = partial(_tell, progress, step, losses[-1] if losses else math.nan)
        try:
            losses.append(_learn(model.network, rng.choices(rows, k=batch), size, tell))
        except Cancelled:
            if not losses:
                raise
            return SearchResult(
                _with_weights(recipe, best[1], mixture.layers), tuple(losses), steps
            )
        if not math.isfinite(losses[-1]):
            raise RecipeError(
                f"search: the loss is {losses[-1]} at step {step + 1}; start from smaller weights"
            )
        recent = statistics.fmean(losses[-SMOOTHED:])
        if recent <= best[0]:
            best = (recent, before)
        mixture.differentiate()
        optimiser.step()
        _tell(progress, step, losses[-1], 1.0)
    return SearchResult(
        _with_weights(recipe, mixture.weights, mixture.layers), tuple(losses), steps
    )


def _check_recipe(recipe: Recipe) -> None:
    rule = RULES[recipe.consensus]
    linear = (
        isinstance(rule, Consensus) and rule.linear and True not in recipe.values_of("normalize")
    )
    if PRUNERS[recipe.prune].law.order != "all" or not linear:
        raise RecipeError(
            "search learns the weights of task_arithmetic (prune: none, consensus: sum); this "
            f"recipe has prune: {recipe.prune} and consensus: {recipe.consensus}"
        )
    if recipe.strength.constant != 1.0:
        raise RecipeError("search needs lambda: 1; multiply the weights by it")


def _depth(recipe: Recipe, family: Family) -> int:
    """Layers of the one stack that the base has. Raises RecipeError where it has several."""
    depths = {entry.place.depth for entry in family.merged if entry.place.is_linear}
    if len(depths) > 1:
        counts = " and ".join(map(str, sorted(depths)))
        raise RecipeError(
            f"search: {recipe.base} has stacks of {counts} layers; one depth is supported"
        )
    return max(depths, default=1)


def _roomy(family: Family, choice: str) -> torch.device:
    """The device that the merged model and its gradients fit on; base and experts stay in memory.

    Raises:
        NotEnoughSpace: neither a GPU nor the memory has room.
        DeviceUnavailable: the device is not there.
    """
    main = main_device(choice)
    sources = sum(model.size_bytes for model in family.models)
    learned, free = 8 * family.base.parameters, free_bytes()
    if main.type == "cuda":
        if sources <= free and learned <= free_bytes(main):
            return main
        if choice != "auto":
            raise NotEnoughSpace(
                f"search: the merged model and its gradients need {gigabytes(learned)}, "
                f"{gigabytes(free_bytes(main))} of {main} are free; choose --device cpu"
            )
        main = torch.device("cpu")
    if sources + learned > free:
        raise NotEnoughSpace(
            f"search: {len(family.models)} models of {family.base.parameters:,} parameters need "
            f"{gigabytes(sources + learned)} of memory, {gigabytes(free)} are free; close other "
            "programs, or search on a machine with more"
        )
    return main


class _Mixture:
    """A network whose parameters are merged anew from base and experts as the weights change.

    Attributes:
        weights: group -> a weight per expert, (E,) float32: what is learned.
        layers: of the base.
    """

    def __init__(self, recipe: Recipe, family: Family, network: PreTrainedModel) -> None:
        self.layers = _depth(recipe, family)
        self._groups = {entry.name: _group(entry) for entry in family.merged}
        self.weights = _start(recipe, family.merged, self._groups)
        network.requires_grad_(False)
        parameters = dict(network.named_parameters())
        self._sources: dict[str, list[torch.Tensor]] = {}
        self._parameters: dict[str, torch.Tensor] = {}
        for entry in family.merged:
            name = entry.name
            if name not in parameters:
                raise RecipeError(f"search: tensor {name} is not a parameter of {recipe.base}")
            if entry.numel != parameters[name].numel():
                raise RecipeError(
                    f"search: tensor {name} has other rows in the experts than in "
                    f"{recipe.base}; search needs models of one vocabulary"
                )
            self._parameters[name] = parameters[name].requires_grad_()
            self._sources[name] = [model.read(name).flatten() for model in family.models]

    @torch.no_grad()
    def merge(self) -> None:
        """Sets the parameters to base + sum of weight x (expert - base), and forgets gradients."""
        for name, parameter in self._parameters.items():
            parameter.grad = None
            weights = self.weights[self._groups[name]].tolist()
            flat = parameter.view(-1)
            for piece, base, deltas in self._pieces(name):
                flat[piece] = base
                for weight, delta in zip(weights, deltas, strict=True):
                    flat[piece].add_(delta, alpha=weight)

    @torch.no_grad()
    def differentiate(self) -> None:
        """Sets the gradients of the weights from those of the parameters."""
        gradients = {group: torch.zeros_like(weight) for group, weight in self.weights.items()}
        for name, parameter in self._parameters.items():
            if parameter.grad is None:
                continue
            flat = parameter.grad.view(-1)
            for piece, _, deltas in self._pieces(name):
                for index, delta in enumerate(deltas):
                    gradients[self._groups[name]][index] += flat[piece].dot(delta).item()
        for group, weight in self.weights.items():
            weight.grad = gradients[group]

    def _pieces(self, name: str) -> Iterator[tuple[slice, torch.Tensor, Iterator[torch.Tensor]]]:
        """(where, the base's entries, each expert's changes) of a tensor, flat, float32."""
        base, *experts = self._sources[name]
        device = self._parameters[name].device
        for start in range(0, base.numel(), _PIECE):
            piece = slice(start, min(start + _PIECE, base.numel()))
            root = base[piece].to(device).float()
            yield piece, root, (expert[piece].to(device).float() - root for expert in experts)


def _rows(model: Model, tasks: Sequence[Task]) -> list[Row]:
    """The tokens of each prompt in the model's chat template and of its answer, end included."""
    prompts = model.read([[{"role": "user", "content": task.prompt}] for task in tasks])
    answers = model.answers([task.answer for task in tasks])
    end = [] if model.language.end is None else [model.language.end]
    rows = [(prompt, answer + end) for prompt, answer in zip(prompts, answers, strict=True)]
    for task, (prompt, answer) in zip(tasks, rows, strict=True):
        if len(prompt) + len(answer) > model.context:
            raise PromptError(
                f"{model.name}: the prompt '{task.prompt[:40]}' has {len(prompt)} tokens and its "
                f"answer {len(answer)}, the model reads {model.context} together; shorten it"
            )
    return rows


def _tell(
    progress: Callable[[float, float], None] | None, done: int, loss: float, part: float
) -> None:
    if progress is not None:
        progress(done + part, loss)


def _end_with(network: PreTrainedModel, cancel: threading.Event | None) -> None:
    """From now on the network raises Cancelled where `cancel` is set, forward and backward."""

    def look(*_: Any) -> None:
        if cancel is not None and cancel.is_set():
            raise Cancelled("stopped; no weights were found")

    for module in network.modules():
        module.register_forward_pre_hook(look)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(look)


def _learn(
    network: PreTrainedModel,
    rows: Sequence[Row],
    size: int,
    tell: Callable[[float], None] = lambda _: None,
) -> float:
    """Adds a batch's gradients to the parameters', `size` rows at a time; its mean cross-entropy
    (nats per answer token). `tell` gets the share of the rows that is done, but for all."""
    ordered = sorted(rows, key=lambda row: len(row[0]) + len(row[1]))
    total, loss = sum(len(answer) for _, answer in rows), 0.0
    for start in range(0, len(ordered), size):
        if start:
            tell(start / len(ordered))
        part = _loss(network, ordered[start : start + size]) / total
        part.backward()
        loss += part.item()
    return loss


def _loss(network: PreTrainedModel, rows: Sequence[Row]) -> torch.Tensor:
    """The summed cross-entropy (nats) of the answers of rows; a scalar."""
    tokens, labels = (table.to(network.device) for table in padded(rows))
    logits = answer_logits(network, tokens, labels)
    return functional.cross_entropy(logits, labels[labels != IGNORED], reduction="sum")


def _rows_at_a_time(
    model: Model, rows: Sequence[Row], batch: int, note: Callable[[str], None] | None
) -> int:
    """How many rows are learned from at a time, measured on the longest.

    Raises:
        NotEnoughSpace: not even one fits into free memory.
    """
    longest = max(rows, key=lambda row: len(row[0]) + len(row[1]))
    each = _saved_bytes(model.network, longest)
    free, room = free_bytes(model.device), batch_bytes(model.device)
    if each > free:
        raise NotEnoughSpace(
            f"search: a prompt of {len(longest[0]) + len(longest[1])} tokens needs "
            f"{gigabytes(each)} of memory, {gigabytes(free)} are free; leave out the longest"
        )
    size = max(1, min(batch, room // max(each, 1)))
    if size < batch and note is not None:
        note(
            f"{size} of {batch} prompts at a time, {gigabytes(size * each)}; {gigabytes(free)} "
            "of memory are free"
        )
    return size


def _saved_bytes(network: PreTrainedModel, row: Row) -> int:
    """Bytes that learning from a row takes beside parameters and gradients."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss(network, [row])  # holds what was saved until it is counted
    del loss
    head: Any = network.get_output_embeddings()
    logits = len(row[1]) * head.weight.shape[0] * 4 if head is not None else 0
    return sum(saved.values()) + 2 * logits  # and their gradients


def _group(entry: Entry) -> Group:
    """A linear is weighed by its module and layer; everything else together."""
    if not entry.place.is_linear:
        return ("*", None)
    _, _, inner = entry.name.partition(f".{entry.place.layer}.")
    return (inner, entry.place.layer)  # with its ".weight": a bias is not the matrix


def _start(
    recipe: Recipe, merged: Sequence[Entry], groups: Mapping[str, Group]
) -> dict[Group, torch.Tensor]:
    """Each group's weights, (E,) float32: the recipe's, averaged over the group's tensors."""
    values: dict[Group, list[list[float]]] = {}
    for entry in merged:
        row = [value_at(source.weight, entry) for source in recipe.sources]
        values.setdefault(groups[entry.name], []).append(row)
    return {group: torch.tensor(rows).mean(0) for group, rows in values.items()}


def _with_weights(recipe: Recipe, learned: Mapping[Group, torch.Tensor], layers: int) -> Recipe:
    """The recipe with the learned weights: a rule per module with a value per layer."""
    modules = list(dict.fromkeys(module for module, _ in learned if module != "*"))
    sources = []
    for index, source in enumerate(recipe.sources):
        values = {
            group: round(float(weight.detach()[index]), DECIMALS)
            for group, weight in learned.items()
        }
        rest = values.get(("*", None), 1.0)
        rules = [
            Rule(module, tuple(values.get((module, layer), rest) for layer in range(layers)))
            for module in modules
        ]
        sources.append(
            replace(
                source, values={**source.values, "weight": Schedule((*rules, Rule("*", (rest,))))}
            )
        )
    return replace(recipe, sources=tuple(sources))
