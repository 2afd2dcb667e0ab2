"""Recipes: what a person asked for, as YAML and as a frozen value.

The schema is mergekit's plus our own parameters. Unknown keys are errors that name the nearest
valid one. Values are checked against the bounds that the methods declare.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from merging.checkpoints.names import DEMO_PREFIX
from merging.declarations.knobs import Knob
from merging.declarations.methods import Blend, Consensus, Pruner, goes_with
from merging.declarations.values import Recipe, Source
from merging.errors import BadFile, RecipeError, shown
from merging.methods import PRESETS, PRUNERS, RULES
from merging.recipe import chat_templates, models, values
from merging.recipe.places import placed, places_of
from merging.recipe.reslicing import along_slices
from merging.recipe.slices import check_gaps, parameters_in, unsliced
from merging.recipe.stages import MAX_STAGES, staged
from merging.recipe.stray import TOP_KEYS, check_home, unknown
from merging.recipe.values import choice, nearest
from merging.system import bounded_yaml, shipped
from merging.system.documents import read_text
from merging.system.lines import Lined, at_line, first_line, line_in, line_of, within

DTYPES = ("float32", "bfloat16", "float16")


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
    try:
        return parse(text, Path(path).resolve().parent)
    except RecipeError as error:
        error.file = str(path)
        raise


def _shipped(name: str) -> Path:
    files = shipped.recipes()
    if name not in files:
        raise RecipeError(f"no recipe demo:{name} ships{nearest(name, files)}")
    return files[name]


def parse(text: str, folder: Path | None = None) -> Recipe:
    """Returns the recipe that YAML `text` holds: of several documents the last, with those that it
    needs as its stages. Raises RecipeError with one line."""
    try:
        documents = bounded_yaml.load_all(text, MAX_STAGES)
    except BadFile as error:
        raise RecipeError(
            f"the recipe is not valid YAML: {error.reason}", line=error.line
        ) from None
    needs = "it needs merge_method, base_model and models"
    if not documents:
        raise RecipeError(f"the recipe is empty: {needs}")
    for document in documents:
        if not isinstance(document, dict):
            kind = "a list" if isinstance(document, list) else "a single value"
            raise RecipeError(
                f"the recipe is {kind}, not a mapping of keys to values: {needs}",
                line=first_line(document),
            )
    if len(documents) == 1:
        return from_mapping(documents[0], folder)
    stages = []
    for document in documents:
        with at_line(first_line(document)):
            stages.append((document.get("name"), from_mapping(document, folder)))
    return staged(stages, folder)


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
    for model, own in models:
        document["models"].append({"model": model, "parameters": dict(own)})
    document["parameters"] = dict(parameters or {})
    if dtype:
        document["dtype"] = dtype
    return from_mapping(document, folder)


def from_mapping(document: Mapping[str, Any], folder: Path | None = None) -> Recipe:
    """Returns the recipe of a parsed document. Raises RecipeError."""
    _check_keys(document)
    written = document
    document = {key: value for key, value in document.items() if value is not None}
    with within(document, "merge_method"):
        method = _method(document.get("merge_method"))
    usual = RULES[PRESETS[method].consensus]
    among = isinstance(usual, Blend) and usual.base == "point"
    sliced = unsliced(document, folder, _SCHEDULED, among=among)
    document = sliced.document
    with within(document, "parameters"):
        shared = parameters_in(document.get("parameters"), "parameters")
    pruner, rule = _methods(shared, method)
    knobs = values.knobs_of(pruner, rule, PRESETS[method].defaults)
    check_home(shared, "parameters", knobs)
    shared = values.renamed(shared, knobs)
    with within(document, "models"):
        named = models.listed(document.get("models"))
    titles = [title for title, _ in named]
    with within(document, "base_model"):
        base = models.base_of(document.get("base_model"), method, rule, named)
    named = models.by_one_name(named, base, folder, document.get("models"))
    origin = _is_origin(rule, document)
    added: list[str] = []
    if not sliced.spans and _adds_base(rule, base, document, [name for name, _ in named]):
        named.append((base, {}))
        added.append(f"{base}: the base is one more model here, beside those listed")
    with within(written, "models", "slices", "modules"):
        sources, notes = _sources(named, base if origin else None, shared, knobs, (pruner, rule))
    values.check_names(shared, knobs, (pruner, rule), _EVERYTHING, "parameters")
    values.check_switches(shared, knobs, pruner, rule)
    notes += [*added, *values.idle(shared, knobs, rule)]
    names = [source.model for source in sources]
    resolved = {
        knob.name: values.value_of(knob, [values.placed(knob, shared, names)], "parameters")
        for knob in knobs.values()
        if not knob.per_model
    }
    blueprint = sliced.blueprint_of(names, titles)
    needs_all = isinstance(rule, Consensus) and rule.needs_all
    weighs = "weight" in knobs and not needs_all
    check_gaps(blueprint, method, weighs=weighs, lines=sliced.lines)
    originals = (base, *(source.model for source in sources))
    with within(document, "tokenizer", "tokenizer_source"):
        giver = models.tokenizer(document, blueprint.models if blueprint else originals, folder)
    if blueprint is None:
        sources = [replace(source, gives_tokenizer=source.model == giver) for source in sources]
    else:
        blueprint = replace(blueprint, tokenizer=giver)
    with within(document, "chat_template"):
        template = chat_templates.chosen(document.get("chat_template"))
    with within(document, "keep_base"):
        kept = models.keep_base(document.get("keep_base"))
    recipe = Recipe(
        method,
        base,
        tuple(sources),
        pruner.id,
        rule.id,
        resolved,
        _dtype(document),
        folder,
        template,
        kept,
        sliced.layers,
        blueprint,
        origin=origin,
        lines=places_of(written),
    )
    recipe = along_slices(recipe, sliced.spans)
    with placed(recipe.lines):
        notes += [remark for one in (pruner, rule) for remark in one.check(recipe, ())]
    return replace(recipe, notes=(*sliced.notes, *notes))


def _methods(shared: Mapping[str, Any], method: str) -> tuple[Pruner, Consensus | Blend]:
    """The pruner and the rule of a recipe's parameters, or of its preset. Raises RecipeError."""
    preset = PRESETS[method]
    with within(shared, "prune"):
        pruner = PRUNERS[choice(shared.get("prune", preset.prune), PRUNERS, "prune")]
    with within(shared, "consensus"):
        rule = RULES[choice(shared.get("consensus", preset.consensus), RULES, "consensus")]
    if not goes_with(pruner, rule):
        raise RecipeError(
            f"prune: {pruner.id} has no effect on {rule.id}, which combines whole models; leave "
            "prune out, or choose a consensus: sum, for instance",
            line=line_in(shared, "prune") or line_in(shared, "consensus"),
        )
    return pruner, rule


def _is_origin(rule: Consensus | Blend, document: Mapping[str, Any]) -> bool:
    """True where changes are counted from the base, which is no model among others then."""
    if not isinstance(rule, Blend) or rule.base == "origin":
        return True
    return rule.base == "either" and document.get("base_model") is not None


def _adds_base(
    rule: Consensus | Blend, base: str, document: Mapping[str, Any], names: Sequence[str]
) -> bool:
    """True where the base takes part as a model although the recipe does not list it as one."""
    return isinstance(rule, Blend) and base not in names and rule.adds_base(document, names)


_EVERYTHING = (*PRUNERS.values(), *RULES.values())
_SCHEDULED = frozenset(
    knob.name for method in _EVERYTHING for knob in method.knobs if knob.scheduled
)


def _sources(
    named: models.Models,
    origin: str | None,
    shared: Mapping[str, Any],
    knobs: Mapping[str, Knob],
    methods: tuple[Pruner, Consensus | Blend],
) -> tuple[list[Source], list[str]]:
    """The models that take part with their own values, and remarks.

    Args:
        origin: the base, where it is no model among others.
    """
    rule = methods[1]
    sources, notes = [], []
    for model, own in named:
        source, remarks = _source(model, own, shared, knobs, methods)
        if model != origin or len(named) == 1:
            sources.append(source)  # else its values must be valid, but it has no change
            notes += remarks
    if [name for name, _ in named] == [origin]:
        notes.append("models: only the base is listed, so the result is the base")
    if isinstance(rule, Blend):
        _check_count(rule, len(sources))
    return sources, notes


def _check_count(rule: Blend, count: int) -> None:
    if rule.least <= count and (rule.most is None or count <= rule.most):
        return
    bounds = f"at least {rule.least}"
    if rule.most is not None:
        bounds = f"{rule.least}" if rule.least == rule.most else f"{rule.least} to {rule.most}"
    beside = "" if rule.base == "point" else " beside the base"
    models = "model" if bounds == "1" else "models"
    amount = "1 is given" if count == 1 else f"{count} are given"
    step = "list more" if count < rule.least else "list fewer, or merge some of them first"
    raise RecipeError(f"models: {rule.id} takes {bounds} {models}{beside}, {amount}; {step}")


def _source(
    model: str,
    own: dict[str, Any],
    shared: Mapping[str, Any],
    knobs: Mapping[str, Knob],
    methods: tuple[Pruner, Consensus | Blend],
) -> tuple[Source, list[str]]:
    where = f"models: {model}"
    for knob in knobs.values():
        if knob.also in own and knob.also not in knobs:
            raise RecipeError(
                f"{where}: {knob.also} is one for all models here; move it to parameters:",
                line=line_in(own, knob.also),
            )
    check_home(own, f"{where}: parameters", knobs)
    values.check_names(own, knobs, methods, _EVERYTHING, where)
    remarks: list[str] = []
    for key in own:
        if key in knobs and not knobs[key].per_model and own[key] != shared.get(key):
            raise RecipeError(
                f"{where}: {key} holds for the whole recipe; move it to parameters:",
                line=line_of(key),
            )
    for key in ("density", "weight"):
        if key not in knobs and (own.get(key) is not None or shared.get(key) is not None):
            what = f"prune: {methods[0].id}" if key == "density" else f"{methods[1].id}"
            line = line_in(own, key) or line_in(shared, key)
            remarks.append(Lined(f"{where}: {key} has no effect with {what}", line))
    resolved = {
        knob.name: values.value_of(knob, [own, shared], where)
        for knob in knobs.values()
        if knob.per_model
    }
    return Source(model, resolved), remarks


def _check_keys(document: Mapping[str, Any]) -> None:
    for key in document:
        if key not in TOP_KEYS:
            raise unknown(key, "", TOP_KEYS)


def _method(value: Any) -> str:
    if isinstance(value, str) and value in PRESETS:
        return value
    if value is None:
        raise RecipeError(f"merge_method is missing; valid: {', '.join(PRESETS)}")
    raise RecipeError(f"merge_method {shown(value)} is not known{nearest(value, PRESETS)}")


def _dtype(document: Mapping[str, Any]) -> str | None:
    chosen = None
    for key in ("dtype", "out_dtype"):  # the second wins
        value = document.get(key)
        if value is None:
            continue
        chosen = str(value).removeprefix("torch.")
        if chosen not in DTYPES:
            raise RecipeError(
                f"{key} {shown(value)} is not known{nearest(chosen, DTYPES)}",
                line=line_in(document, key),
            )
    return chosen
