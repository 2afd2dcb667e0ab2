"""Search for a recipe's weights: one per expert, module and layer, learned on validation prompts.

The merged model is differentiable in its weights, so a few hundred steps of gradient descent find
what a search by trial needs thousands of merges for. As AdaMerging (arXiv 2310.02575, section 3.2,
layer-wise), but where that lowers the entropy of unlabelled answers, these prompts have answers,
and the loss is theirs.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch.func import functional_call
from torch.nn import functional

from merging.checkpoints import Entry, resolve
from merging.demo.tasks import Task
from merging.errors import Cancelled, RecipeError
from merging.merge import open_recipe
from merging.recipe import Recipe
from merging.schedule import Rule, Schedule
from merging.stages import value_at
from merging.trial.loading import load
from merging.trial.model import Model

Group = tuple[str, int | None]
"""Tensors that share a weight: (part of their names, layer); ("*", None) for the rest."""

Row = tuple[list[int], list[int]]
"""The tokens of a prompt and of its answer."""

IGNORED = -100
STEPS, LEARNING_RATE, BATCH = 200, 0.02, 96
DECIMALS = 3


@dataclass(frozen=True)
class Found:
    """A search's result.

    Attributes:
        recipe: the recipe with the weights that were found.
        losses: mean cross-entropy (nats per answer token) of each step's prompts.
    """

    recipe: Recipe
    losses: tuple[float, ...]


def search(
    recipe: Recipe,
    tasks: Sequence[Task],
    *,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    batch: int = BATCH,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
    cancel: threading.Event | None = None,
) -> Found:
    """Learns the weights of a task-arithmetic recipe, starting from those it has.

    All models are held in memory as float32.

    Args:
        recipe: prune: none and consensus: sum, not normalized.
        tasks: validation prompts with answers; every step draws `batch` of them.
        learning_rate: Adam's; falls to a tenth over the steps.
        progress: called after every step with its number from 1 and its loss.
        cancel: set it to stop at the next step.

    Raises:
        RecipeError: another kind of recipe, a tensor that does not fit the base, or a loss that is
            not finite.
        Cancelled: `cancel` was set.
    """
    if (recipe.prune, recipe.consensus) != ("none", "sum") or recipe.parameters.get("normalize"):
        raise RecipeError(
            "search learns the weights of task_arithmetic (prune: none, consensus: sum); this "
            f"recipe has prune: {recipe.prune} and consensus: {recipe.consensus}"
        )
    if recipe.strength.constant != 1.0:
        raise RecipeError("search needs lambda: 1; multiply the weights by it")
    family = open_recipe(recipe)
    depths = {entry.place.depth for entry in family.merged if entry.place.is_linear}
    if len(depths) > 1:
        counts = " and ".join(map(str, sorted(depths)))
        raise RecipeError(
            f"search: {recipe.base} has stacks of {counts} layers; one depth is supported"
        )
    layers = max(depths, default=1)
    folder = resolve(recipe.base, recipe.folder)
    model = load(folder, torch.float32, name=recipe.base)
    network = model.network.requires_grad_(False)
    parameters = dict(network.named_parameters())
    for entry in family.merged:
        if entry.name not in parameters:
            raise RecipeError(f"search: tensor {entry.name} is not a parameter of {recipe.base}")
        if entry.numel != parameters[entry.name].numel():
            raise RecipeError(
                f"search: tensor {entry.name} has other rows in the experts than in {recipe.base}; "
                "search needs models of one vocabulary"
            )
    deltas = {
        entry.name: torch.stack(
            [expert.read(entry.name).float() - parameters[entry.name] for expert in family.experts]
        )
        for entry in family.merged
    }
    groups = {entry.name: _group(entry) for entry in family.merged}
    weights = _start(recipe, family.merged, groups)
    learned = {group: value.requires_grad_() for group, value in weights.items()}
    optimiser = torch.optim.Adam(learned.values(), lr=learning_rate)
    rng = random.Random(seed)
    rows = _rows(model, tasks)
    losses: list[float] = []
    for step in range(steps):
        if cancel is not None and cancel.is_set():
            raise Cancelled("stopped; no weights were found")
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * (1 - 0.9 * step / steps)
        merged = {
            name: parameters[name] + torch.tensordot(learned[groups[name]], delta, 1)
            for name, delta in deltas.items()
        }
        loss = _loss(network, merged, *_padded(rng.choices(rows, k=batch)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise RecipeError(
                f"search: the loss is {losses[-1]} at step {step + 1}; start from smaller weights"
            )
        if progress is not None:
            progress(step + 1, losses[-1])
    return Found(_with_weights(recipe, learned, layers), tuple(losses))


def _rows(model: Model, tasks: Sequence[Task]) -> list[Row]:
    """The tokens of each prompt in the model's chat template and of its answer, end included."""
    prompts = model.read([[{"role": "user", "content": task.prompt}] for task in tasks])
    answers = model.answers([task.answer for task in tasks])
    end = [] if model.language.end is None else [model.language.end]
    return [(prompt, answer + end) for prompt, answer in zip(prompts, answers, strict=True)]


def _padded(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens padded on the right (attention is causal, so nothing sees it), and the token after
    each position, IGNORED off the answers; both (len(rows), longest) int64."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows) - 1
    tokens = torch.zeros(len(rows), longest, dtype=torch.int64)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, (prompt, answer) in enumerate(rows):
        text = torch.tensor(prompt + answer)
        tokens[index, : len(text) - 1] = text[:-1]
        labels[index, len(prompt) - 1 : len(text) - 1] = text[len(prompt) :]
    return tokens, labels


def _loss(
    model: torch.nn.Module,
    merged: Mapping[str, torch.Tensor],
    tokens: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Mean cross-entropy (nats) of a batch's answers under merged parameters; a scalar."""
    output = functional_call(model, dict(merged), (), {"input_ids": tokens, "use_cache": False})
    return functional.cross_entropy(
        output.logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
    )


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
    found: dict[Group, list[list[float]]] = {}
    for entry in merged:
        row = [value_at(source.weight, entry) for source in recipe.sources]
        found.setdefault(groups[entry.name], []).append(row)
    return {group: torch.tensor(rows).mean(0) for group, rows in found.items()}


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
        sources.append(replace(source, weight=Schedule((*rules, Rule("*", (rest,))))))
    return replace(recipe, sources=tuple(sources))
