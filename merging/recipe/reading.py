"""Recipes: what a person asked for, as YAML and as a frozen value.

The schema is mergekit's plus our own parameters. Unknown keys are errors that name the nearest
valid one. Values are checked against the bounds that the methods declare.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from merging.checkpoints.names import DEMO_PREFIX, short_names
from merging.declarations.schedules import MAX_RULES, Schedule, chain, constant, is_number
from merging.errors import BadFile, RecipeError, shown
from merging.methods import CONSENSUS, PRESETS, PRUNERS, Knob
from merging.recipe import chat_templates
from merging.recipe.slices import check_count, parameters_in, unsliced
from merging.system import bounded_yaml, shipped
from merging.system.documents import read_text

DTYPES = ("float32", "bfloat16", "float16")
MAX_PARTITIONS = 16
_MOST_WRAPS = 4  # of a reference: {model: {model: {path: x}}}
_LONGEST_KEY = 64  # beyond that no valid one is near
_TOP_KEYS = (
    "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype",
    "modules", "tokenizer_source", "tokenizer", "chat_template", "keep_base", "record", "name",
)  # fmt: skip
_MERGEKIT_S = frozenset((
    "slerp", "nuslerp", "multislerp", "karcher", "model_stock", "passthrough", "breadcrumbs",
    "breadcrumbs_ties", "della", "della_linear", "sce", "arcee_fusion", "nearswap", "core_space",
    "generalized_task_arithmetic", "ram", "ramplus_tl",
))  # fmt: skip
_PER_MODEL = ("weight", "density", "amplification")
_AXES = ("prune", "consensus")
_NO_EFFECT = ("int8_mask",)  # mergekit's memory option: does not change the result


@dataclass(frozen=True)
class Source:
    """One model of a recipe and its own values.

    Attributes:
        model: folder, Hub id or demo:NAME, as written.
        amplification: K factors, most important partition first.
        gives_tokenizer: the result gets its tokenizer, chat templates and generation settings
            instead of the base's.
    """

    model: str
    weight: Schedule
    density: Schedule
    amplification: tuple[float, ...] = (1.0,)
    gives_tokenizer: bool = False


@dataclass(frozen=True)
class Recipe:
    """What to merge and how, every default filled in.

    Attributes:
        method: the merge method's name (a preset).
        base: the base's reference; for "linear" without a base, the first model's.
        prune, consensus: the choice on each axis.
        strength: lambda.
        parameters: every other knob of the two axes by name.
        dtype: type of the output ("bfloat16"), None for the base's own types.
        folder: folder that relative paths are read against.
        chat_template: "auto" for the one that most models have, a name or a text; None for that
            of the tokenizer.
        keep_base: parts of names; tensors that have one stay as the base has them.
        layers: how many layers the models must have, where the recipe names them in slices.
        notes: remarks for the user that are not errors.
    """

    method: str
    base: str
    sources: tuple[Source, ...]
    prune: str
    consensus: str
    strength: Schedule
    parameters: Mapping[str, Any]
    dtype: str | None = None
    folder: Path | None = None
    chat_template: str | None = None
    keep_base: tuple[str, ...] = ()
    layers: int | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def tokenizer(self) -> str | None:
        """The source whose tokenizer the result gets; None for the base's."""
        return next((s.model for s in self.sources if s.gives_tokenizer), None)

    @property
    def partitions(self) -> int:
        """K, the number of partitions of the kept changes."""
        return max(len(source.amplification) for source in self.sources)


def load(path: Path) -> Recipe:
    """Reads a recipe file; relative model paths are read against its folder.

    Args:
        path: the file, or demo:NAME for an example that ships.

    Raises:
        RecipeError: the file cannot be read or is not a valid recipe.
    """
    if str(path).startswith(DEMO_PREFIX):
        path = _shipped(str(path).removeprefix(DEMO_PREFIX))
    try:
        text = read_text(Path(path), bounded_yaml.MOST_CHARACTERS)
    except BadFile as error:
        raise RecipeError(f"{error}; give a YAML recipe") from None
    return parse(text, Path(path).resolve().parent)


def _shipped(name: str) -> Path:
    files = shipped.recipes()
    if name not in files:
        raise RecipeError(f"no recipe demo:{name} ships{_nearest(name, files)}")
    return files[name]


def parse(text: str, folder: Path | None = None) -> Recipe:
    """Returns the recipe that YAML `text` holds. Raises RecipeError with one line."""
    try:
        document = bounded_yaml.load(text)
    except BadFile as error:
        raise RecipeError(f"the recipe is not valid YAML: {error}") from None
    needs = "it needs merge_method, base_model and models"
    if document is None:
        raise RecipeError(f"the recipe is empty: {needs}")
    if not isinstance(document, dict):
        kind = "a list" if isinstance(document, list) else "a single value"
        raise RecipeError(f"the recipe is {kind}, not a mapping of keys to values: {needs}")
    return from_mapping(document, folder)


def build(
    *,
    method: str,
    base: str | None,
    models: Sequence[tuple[str, Mapping[str, Any]]],
    parameters: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    folder: Path | None = None,
) -> Recipe:
    """Returns the recipe of plain values: models as (reference, parameters) pairs."""
    document: dict[str, Any] = {"merge_method": method, "models": []}
    if base is not None:
        document["base_model"] = base
    for model, values in models:
        document["models"].append({"model": model, "parameters": dict(values)})
    document["parameters"] = dict(parameters or {})
    if dtype:
        document["dtype"] = dtype
    return from_mapping(document, folder)


def from_mapping(document: Mapping[str, Any], folder: Path | None = None) -> Recipe:
    """Returns the recipe of a parsed document. Raises RecipeError."""
    _check_keys(document)
    method = _method(document.get("merge_method"))
    document, layers = unsliced(document)
    parameters = parameters_in(document.get("parameters"), "parameters")
    preset = PRESETS[method]
    prune = _choice(parameters.get("prune", preset.prune), PRUNERS, "prune")
    consensus = _choice(parameters.get("consensus", preset.consensus), CONSENSUS, "consensus")
    notes: list[str] = []
    knobs = _knobs(method, prune, consensus)
    if {"density", "pcb_density"} <= set(parameters) and prune == "none":
        raise RecipeError("parameters: density and pcb_density are one here; give one of them")
    if "density" in parameters and prune == "none" and consensus == "pcb":
        parameters["pcb_density"] = parameters.pop("density")
    for key in parameters:
        _check_parameter(key, knobs, prune, consensus, "parameters")
    _check_mergekit_switches(parameters, knobs, prune, consensus)
    models = _models(document.get("models"))
    base = _base(document.get("base_model"), method, models)
    models = _by_one_name(models, base, folder)
    if method == "linear" and layers is None and "weight" in parameters:
        # mergekit averages the base too, where it is named and every model has a weight
        models += [(base, {})] if base not in [name for name, _ in models] else []
    sources = []
    for model, values in models:
        unused = model == base and method != "linear" and len(models) > 1
        told: list[str] = []
        source = _source(model, values, parameters, knobs, (prune, consensus), told)
        if not unused:  # the base has no change against itself, but its values must be valid
            sources.append(source)
            notes += told
    resolved = {
        knob.name: _value(knob, parameters.get(knob.name, knob.default))
        for knob in knobs.values()
        if knob.name not in _PER_MODEL and knob.name != "lambda"
    }
    strength = chain([parameters.get("lambda")], 1.0, "lambda")
    for value in strength.values:
        if not math.isfinite(value):
            raise RecipeError(f"lambda: {value} is not finite; give a number such as 0.5")
    if [name for name, _ in models] == [base] and method != "linear":
        notes.append("models: only the base is listed, so the result is the base")
    if resolved.get("pcb_density") == 1.0:
        notes.append("density: 1 lets out-voted changes take part; 0.05 to 0.2 is usual for PCB")
    _check_weights(sources, resolved, method, consensus)
    _check_scope(sources, resolved, prune)
    giver = _tokenizer(document, base, sources, folder)
    sources = [replace(source, gives_tokenizer=source.model == giver) for source in sources]
    return Recipe(
        method, base, tuple(sources), prune, consensus, strength, resolved,
        _dtype(document), folder, chat_templates.chosen(document.get("chat_template")),
        _keep_base(document.get("keep_base")), layers, tuple(notes),
    )  # fmt: skip


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with every default spelled out; `parse` gives the same recipe back."""
    models = []
    knobs = _knobs(recipe.method, recipe.prune, recipe.consensus)
    for source in recipe.sources:
        values: dict[str, Any] = {"weight": source.weight.to_yaml()}
        if "density" in knobs:
            values["density"] = source.density.to_yaml()
        if "amplification" in knobs:
            values["amplification"] = list(source.amplification)
        models.append({"model": source.model, "parameters": values})
    document: dict[str, Any] = {"merge_method": recipe.method, "base_model": recipe.base}
    document["models"] = models
    document["parameters"] = {
        "prune": recipe.prune,
        "consensus": recipe.consensus,
        **recipe.parameters,
        "lambda": recipe.strength.to_yaml(),
    }
    if recipe.dtype:
        document["dtype"] = recipe.dtype
    if recipe.tokenizer is not None:
        document["tokenizer_source"] = recipe.tokenizer
    if recipe.chat_template is not None:
        document["chat_template"] = recipe.chat_template
    if recipe.keep_base:
        document["keep_base"] = list(recipe.keep_base)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def describe(recipe: Recipe, called: Mapping[str, str] | None = None) -> str:
    """The recipe in a few sentences of plain words.

    Args:
        called: what each model is called, by its reference; by default the shortest names that
            tell the recipe's own models apart.
    """
    recipe = _by_names(recipe, called)
    names = [source.model for source in recipe.sources]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    parts = [f"Start from {recipe.base} and take the changes of {listed}."]
    kept = _each(recipe, lambda source: _share(source.density))
    if " of " not in kept:
        kept += " of each"
    parts.append(PRUNERS[recipe.prune].words.format(**recipe.parameters, kept=kept))
    if any(factor != 1 for source in recipe.sources for factor in source.amplification):
        factors = _each(recipe, lambda source: ", ".join(f"{f:g}" for f in source.amplification))
        parts.append(f"Amplify the partitions by {factors}, most important first.")
    if recipe.parameters.get("scale_dense") == "none":
        parts.append("Leave embeddings, norms and the head as the base has them.")
    averaged = recipe.parameters.get("normalize", recipe.consensus == "mean")
    join, combine = ("average", "Average them") if averaged else ("add up", "Add them up")
    words = CONSENSUS[recipe.consensus].words
    parts.append(words.format(**recipe.parameters, join=join, combine=combine))
    if any(source.weight.constant != 1 for source in recipe.sources):
        weights = _each(recipe, lambda source: _factor(source.weight))
        varied = all(source.weight.constant is None for source in recipe.sources)
        parts.append("Their weights vary along the model." if varied else f"Weights: {weights}.")
    if recipe.strength.constant != 1:
        parts.append(f"Scale the result by {_factor(recipe.strength)}.")
    return " ".join(parts)


def _by_names(recipe: Recipe, called: Mapping[str, str] | None) -> Recipe:
    references = list(dict.fromkeys([recipe.base, *(source.model for source in recipe.sources)]))
    names = called or dict(zip(references, short_names(references, recipe.folder), strict=True))
    sources = tuple(replace(source, model=names[source.model]) for source in recipe.sources)
    return replace(recipe, base=names[recipe.base], sources=sources)


def _each(recipe: Recipe, tell: Callable[[Source], str]) -> str:
    """What holds of each model: said once where it is the same for all."""
    told = [tell(source) for source in recipe.sources]
    if len(set(told)) == 1:
        return told[0]
    of = zip(told, (source.model for source in recipe.sources), strict=True)
    return "; ".join(f"{text} of {model}" for text, model in of)


def _share(schedule: Schedule) -> str:
    value = schedule.constant
    return "a share that varies by layer" if value is None else f"{100 * value:.3g}%"


def _factor(schedule: Schedule) -> str:
    value = schedule.constant
    return "one that varies along the model" if value is None else f"{value:g}"


def _knobs(method: str, prune: str, consensus: str) -> dict[str, Knob]:
    """The knobs of both axes by name, with the preset's defaults."""
    knobs = {knob.name: knob for knob in (*PRUNERS[prune].knobs, *CONSENSUS[consensus].knobs)}
    if averages_models(method, consensus):
        normalize = CONSENSUS["sum"].knobs[2]
        knobs["normalize"] = Knob(**{**vars(normalize), "default": True})
    if consensus == "pcb" and prune != "magnitude":  # else one scope rules both
        knobs["scope"] = Knob(**{**vars(knobs["scope"]), "default": "model"})  # as the paper
    for name, value in PRESETS[method].defaults.items():
        if name in knobs:
            knobs[name] = Knob(**{**vars(knobs[name]), "default": value})
    return knobs


def averages_models(method: str, consensus: str) -> bool:
    """True where a recipe means whole models rather than changes: `linear` as it is."""
    return method == "linear" and consensus in ("mean", "sum")


def _check_keys(document: Mapping[str, Any]) -> None:
    for key in document:
        if key not in _TOP_KEYS:
            raise RecipeError(f"unknown key {shown(key)}{_nearest(key, _TOP_KEYS)}")


def _method(value: Any) -> str:
    if isinstance(value, str) and value in PRESETS:
        return value
    if isinstance(value, str) and value in _MERGEKIT_S:
        raise RecipeError(
            f"merge_method {value} of mergekit is not supported yet; run it with mergekit and use "
            f"the result as a model, or choose another: {', '.join(PRESETS)}"
        )
    raise RecipeError(f"merge_method {shown(value)} is not known{_nearest(value, PRESETS)}")


def _tokenizer(
    document: Mapping[str, Any], base: str, sources: Sequence[Source], folder: Path | None
) -> str | None:
    """The source whose tokenizer is asked for, as the recipe calls it; None for the base."""
    asked, where = document.get("tokenizer_source"), "tokenizer_source"
    if "tokenizer" in document and document["tokenizer"] is not None:
        if asked is not None:
            raise RecipeError("tokenizer: give tokenizer or tokenizer_source, not both")
        value, where = document["tokenizer"], "tokenizer"
        if not isinstance(value, dict) or set(value) - {"source"}:
            raise RecipeError(
                "tokenizer: only source: is supported; tokens cannot be set one by one"
            )
        asked = value.get("source")
    if asked in (None, "base"):
        return None
    if asked == "union":
        raise RecipeError(
            f"{where}: union is not supported yet: vocabularies are not merged; leave it out (the "
            "base's tokenizer, and the rows that all share), or name an expert whose ids agree"
        )
    wanted = _place_of(_reference(asked, where), folder)
    for name in (base, *(source.model for source in sources)):
        if wanted == _place_of(name, folder):
            return None if name == base else name
    raise RecipeError(
        f"{where}: {shown(asked)} is none of this recipe's models; name the base or an expert"
    )


def _place_of(reference: str, folder: Path | None) -> str:
    """What tells a model from others: its folder where it is one, wherever links lead."""
    path = os.path.normpath((folder or Path.cwd()) / os.path.expanduser(reference))
    return os.path.realpath(path) if os.path.isdir(path) else os.path.normpath(reference)


def _keep_base(value: Any) -> tuple[str, ...]:
    """Parts of tensors' names."""
    parts = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(parts, list) or not all(isinstance(part, str) and part for part in parts):
        raise RecipeError("keep_base: list parts of tensors' names, such as [lm_head, mlp.experts]")
    if len(parts) > MAX_RULES:
        raise RecipeError(f"keep_base: {len(parts)} parts are given, at most {MAX_RULES} are read")
    return tuple(dict.fromkeys(parts))


def _check_parameter(
    key: str, knobs: Mapping[str, Knob], prune: str, consensus: str, where: str
) -> None:
    if key in knobs or key in _AXES or key in _NO_EFFECT or key in _PER_MODEL:
        return
    if key in ("rescale", "normalize"):
        return  # mergekit names them for every task-vector method; checked with their values
    for axis in (*PRUNERS.values(), *CONSENSUS.values()):
        if any(knob.name == key for knob in axis.knobs):
            raise RecipeError(
                f"{where}: {key} belongs to {axis.kind}: {axis.id}; this recipe has "
                f"prune: {prune} and consensus: {consensus}"
            )
    raise RecipeError(f"{where}: unknown parameter {shown(key)}{_nearest(key, [*knobs, *_AXES])}")


def _check_mergekit_switches(
    parameters: Mapping[str, Any], knobs: Mapping[str, Knob], prune: str, consensus: str
) -> None:
    """mergekit accepts rescale and normalize everywhere; where they would change the result and
    are not a knob here, say so instead of ignoring them."""
    rescales = _switch(parameters.get("rescale", False), "rescale")
    if "rescale" not in knobs and rescales and prune != "none":
        raise RecipeError(f"rescale: true is not supported with prune: {prune}; use prune: random")
    implied = {"mean": True, "pcb": True}.get(consensus)
    if "normalize" in knobs or "normalize" not in parameters:
        return
    if _switch(parameters["normalize"], "normalize") != implied:
        raise RecipeError(f"normalize: false is not supported with consensus: {consensus}")


def _models(value: Any) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(value, list) or not value:
        raise RecipeError("models: list at least one model to merge")
    check_count(len(value))
    models = []
    for index, item in enumerate(value):
        where = f"models[{index}]"
        if isinstance(item, str):
            item = {"model": item}
        if not isinstance(item, dict) or "model" not in item:
            raise RecipeError(f"{where}: needs model: and its parameters:")
        for key in item:
            if key not in ("model", "parameters"):
                raise RecipeError(
                    f"{where}: unknown key {shown(key)}{_nearest(key, ['model', 'parameters'])}"
                )
        models.append(
            (_reference(item["model"], where), parameters_in(item.get("parameters"), where))
        )
    names: set[str] = set()
    for name, _ in models:
        if name in names:
            raise RecipeError(f"models: {name} is listed twice; give it once, with its weight")
        names.add(name)
    return models


def _reference(value: Any, where: str) -> str:
    for _ in range(_MOST_WRAPS):
        if not isinstance(value, dict) or len({"model", "path"} & set(value)) != 1:
            break
        for key, wanted in value.items():
            if key not in ("model", "path") and wanted is not None:
                raise RecipeError(
                    f"{where}: {key} is not supported here; download or merge it, give its folder"
                )
        value = value.get("model", value.get("path"))
    if isinstance(value, bool | int | float):
        raise RecipeError(f"{where}: {shown(value)} is not text; put a folder's name in quotes")
    if not isinstance(value, str) or not value:
        raise RecipeError(f"{where}: model must be a folder, a Hub id or demo:NAME")
    if not value.isprintable():
        raise RecipeError(
            f"{where}: {shown(value)} holds a character that cannot be seen; type the name anew"
        )
    return value


def _base(value: Any, method: str, models: Sequence[tuple[str, Any]]) -> str:
    if value is None:
        if method == "linear":
            return models[0][0]
        raise RecipeError(f"base_model is missing; {method} adds changes to a base")
    return _reference(value, "base_model")


def _by_one_name(
    models: Sequence[tuple[str, dict[str, Any]]], base: str, folder: Path | None
) -> list[tuple[str, dict[str, Any]]]:
    """The models, the base among them by the name that base_model gives it.

    Raises:
        RecipeError: two names are one folder's.
    """
    places = {_place_of(base, folder): base}
    named = []
    for name, values in models:
        known = places.setdefault(_place_of(name, folder), name)
        if known not in (name, base):
            raise RecipeError(f"models: {known} and {name} are one folder; give it once")
        named.append((known, values))
    if [name for name, _ in named].count(base) > 1:
        raise RecipeError(f"models: {base} is listed twice; give it once, with its weight")
    return named


def _source(
    model: str,
    values: dict[str, Any],
    parameters: Mapping[str, Any],
    knobs: Mapping[str, Knob],
    axes: tuple[str, str],
    notes: list[str],
) -> Source:
    where = f"models: {model}"
    if "density" in values and axes == ("none", "pcb"):
        raise RecipeError(f"{where}: density is one for all models here; move it to parameters:")
    for key in values:
        _check_parameter(key, knobs, *axes, where)
        if key not in (*_PER_MODEL, *_NO_EFFECT):
            raise RecipeError(f"{where}: {key} holds for the whole recipe; move it to parameters:")
    levels = {key: [values.get(key), parameters.get(key)] for key in _PER_MODEL}
    weight = chain(levels["weight"], 1.0, f"{where}: weight")
    density = constant(1.0)
    if "density" in knobs:
        density = chain(levels["density"], knobs["density"].default, f"{where}: density")
        for value in density.values:
            _check_range(knobs["density"], value, where)
    elif any(level is not None for level in levels["density"]):
        notes.append(f"{where}: density has no effect with prune: {axes[0]}")
    for value in weight.values:
        if not math.isfinite(value):
            raise RecipeError(f"{where}: weight {value} is not finite; give a number such as 0.5")
    return Source(model, weight, density, _amplification(levels, knobs, axes[0], where))


def _amplification(
    levels: Mapping[str, list[Any]], knobs: Mapping[str, Knob], prune: str, where: str
) -> tuple[float, ...]:
    given = next((level for level in levels["amplification"] if level is not None), None)
    if "amplification" not in knobs:
        if given is not None:
            raise RecipeError(
                f"{where}: amplification needs partitions: prune: magnitude or dynamic, not {prune}"
            )
        return (1.0,)
    value = knobs["amplification"].default if given is None else given
    factors = value if isinstance(value, list | tuple) else [value]
    if not factors or len(factors) > MAX_PARTITIONS:
        raise RecipeError(f"{where}: amplification has {len(factors)} factors, 1 to 16 are valid")
    for factor in factors:
        if not is_number(factor) or not factor >= 0:
            raise RecipeError(f"{where}: amplification factor {shown(factor)} is not a number >= 0")
        if not math.isfinite(factor):
            raise RecipeError(f"{where}: amplification factor {shown(factor)} is not finite")
    return tuple(float(factor) for factor in factors)


def _value(knob: Knob, value: Any) -> Any:
    if isinstance(knob.default, bool):
        return _switch(value, knob.name)
    if knob.choices:
        return _choice(value, knob.choices, knob.name)
    if not is_number(value):
        raise RecipeError(f"{knob.name}: {shown(value)} is not a number")
    _check_range(knob, value, "parameters")
    if isinstance(knob.default, int) and value != int(value):
        raise RecipeError(f"{knob.name}: {shown(value)} is not a whole number")
    return int(value) if isinstance(knob.default, int) else float(value)


def _switch(value: Any, name: str) -> bool:
    """True or false, also as mergekit's recipes write them: 1.0, "true"."""
    word = str(value).lower()
    if isinstance(value, bool | int | float | str) and word in ("true", "1", "1.0"):
        return True
    if isinstance(value, bool | int | float | str) and word in ("false", "0", "0.0"):
        return False
    raise RecipeError(f"{name}: {shown(value)} is not true or false")


def _check_range(knob: Knob, value: float, where: str) -> None:
    low, high = knob.low, knob.high
    if low is None or high is None:
        return
    if not low <= value <= high:
        raise RecipeError(f"{where}: {knob.name} {value:g} is outside {low:g} to {high:g}")


def _check_weights(
    sources: Sequence[Source], values: Mapping[str, Any], method: str, consensus: str
) -> None:
    divides = consensus == "mean" and values.get("normalize", True)
    weights = [source.weight.constant for source in sources]
    if divides and None not in weights and abs(sum(w or 0.0 for w in weights)) < 1e-8:
        raise RecipeError(f"the weights of {method} sum to 0; change one, or use task_arithmetic")


def _check_scope(sources: Sequence[Source], values: Mapping[str, Any], prune: str) -> None:
    if prune != "magnitude" or values["scope"] != "model":
        return
    for source in sources:
        if source.density.constant is None:
            raise RecipeError(
                f"models: {source.model}: scope: model ranks all tensors together and needs one "
                "density; give a single number, or scope: tensor"
            )


def _dtype(document: Mapping[str, Any]) -> str | None:
    chosen = None
    for key in ("dtype", "out_dtype"):  # the second wins
        value = document.get(key)
        if value is None:
            continue
        chosen = str(value).removeprefix("torch.")
        if chosen not in DTYPES:
            raise RecipeError(f"{key} {shown(value)} is not known{_nearest(chosen, DTYPES)}")
    return chosen


def _choice(value: Any, choices: Any, name: str) -> str:
    if not isinstance(value, str) or value not in choices:
        raise RecipeError(f"{name}: {shown(value)} is not known{_nearest(value, choices)}")
    return value


def _nearest(value: Any, choices: Any) -> str:
    word = value if isinstance(value, str) and len(value) <= _LONGEST_KEY else ""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    valid = ", ".join(str(choice) for choice in choices)
    return f"; did you mean {close[0]}?" if close else f"; valid: {valid}"
