"""mergekit's long forms of a recipe, as its short form: whole models with values per layer.

A recipe may hold its models under `modules` (one, named default) and in `slices`. One slice with
every layer is a list of models. Slices that follow each other and together are every layer restack
nothing either: what a slice says becomes rules for its layers. Anything else would build another
stack of layers, which is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from merging.declarations.schedules import before, is_number
from merging.errors import RecipeError, shown
from merging.methods import CONSENSUS, PRESETS

MAX_MODELS = 256
MAX_SLICES = 256
_SCHEDULED = ("weight", "density", "lambda")
_WHOLE = (
    "slices that follow each other from layer 0 to the last are merged, stacks of other layers "
    "are not supported yet; list whole models under models:, or restack with mergekit and merge "
    "the result"
)


def unsliced(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], int | None]:
    """A recipe's document with its models listed under models.

    Returns:
        The document, and the number of layers that its slices name (None: it has no slices).

    Raises:
        RecipeError: layers would be restacked, or a part is malformed.
    """
    document = _one_module(document)
    if "slices" not in document:
        return document, None
    slices = document["slices"]
    if "models" in document:
        raise RecipeError("slices: give models or slices, not both")
    if not isinstance(slices, list) or not slices or not all(map(_is_mapping, slices)):
        raise RecipeError(
            "slices: list one slice with all layers, or several that follow each other"
        )
    if len(slices) > MAX_SLICES:
        raise RecipeError(f"slices: {len(slices)} are given, at most {MAX_SLICES} are read")
    spans = [_span(index, one) for index, one in enumerate(slices)]
    starts = [0, *(stop for _, stop in spans[:-1])]
    for index, ((start, stop), wanted) in enumerate(zip(spans, starts, strict=True)):
        if start != wanted:
            raise RecipeError(
                f"slices[{index}]: layers cannot be restacked: layer_range [{start}, {stop}] does "
                f"not begin at layer {wanted}; {_WHOLE}"
            )
    parameters = parameters_in(document.get("parameters"), "parameters")
    own = [parameters_in(one.get("parameters"), f"slices[{i}]") for i, one in enumerate(slices)]
    for key, value in _by_layer(own, spans, "slices").items():
        parameters[key] = before(value, parameters[key]) if key in parameters else value
    base = _base(document, slices)
    rest = {key: document[key] for key in document if key != "slices"}
    models = _models(slices, spans, base, _competes(document, parameters))
    return rest | {"models": models, "parameters": parameters, "base_model": base}, spans[-1][1]


def check_count(models: int) -> None:
    """Raises RecipeError where a recipe lists more models than are merged at once."""
    if models > MAX_MODELS:
        raise RecipeError(
            f"models: {models} are listed, at most {MAX_MODELS} are merged at once; merge some of "
            "them first, then the results"
        )


def _one_module(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A document whose only module is named default, without it."""
    if "modules" not in document:
        return document
    modules = document["modules"]
    if not isinstance(modules, dict) or list(modules) != ["default"]:
        names = ", ".join(map(str, modules)) if isinstance(modules, dict) else shown(modules)
        raise RecipeError(
            f"modules: parts of a model are not merged apart (here: {names[:100]}); give one "
            "module named default, or list whole models under models:"
        )
    inside = modules["default"]
    if not isinstance(inside, dict):
        raise RecipeError("modules: default: needs models: or slices:")
    for key in inside:
        if key not in ("models", "slices", "parameters"):
            raise RecipeError(
                f"modules: default: unknown key {shown(key)}; valid: models, slices, parameters"
            )
        if key != "parameters" and {"models", "slices"} & set(document):
            raise RecipeError("modules: give models or slices inside the module or outside it")
    parameters = parameters_in(document.get("parameters"), "parameters")
    for key, value in parameters_in(inside.get("parameters"), "modules: default").items():
        parameters[key] = before(value, parameters[key]) if key in parameters else value
    rest = {key: document[key] for key in document if key != "modules"}
    return rest | {k: inside[k] for k in inside if k != "parameters"} | {"parameters": parameters}


def _span(index: int, one: Mapping[str, Any]) -> tuple[int, int]:
    """The layers of a slice: what every model of it names."""
    where = f"slices[{index}]"
    for key in one:
        if key not in ("sources", "parameters", "base_model"):
            raise RecipeError(f"{where}: unknown key {shown(key)}; valid: sources, parameters")
    sources = one.get("sources")
    if not isinstance(sources, list) or not sources or not all(map(_is_mapping, sources)):
        raise RecipeError(
            f"{where}: sources: list at least one model and its layer_range, or give one slice "
            "with all layers"
        )
    ranges = [item.get("layer_range") for item in sources]
    first = ranges[0]
    if not isinstance(first, list) or [type(side) for side in first] != [int, int]:
        raise RecipeError(f"{where}: layer_range must be [0, number of layers], not {shown(first)}")
    for other in ranges:
        if other != first:
            raise RecipeError(
                f"{where}: layer_range {shown(other)} beside {shown(first)}: layers cannot be "
                f"restacked; {_WHOLE}"
            )
    start, stop = first
    if not 0 <= start < stop:
        raise RecipeError(f"{where}: layer_range {first} holds no layer; write [0, layers]")
    return start, stop


def _base(document: Mapping[str, Any], slices: Sequence[Mapping[str, Any]]) -> Any:
    base = document.get("base_model")
    for index, one in enumerate(slices):
        own = one.get("base_model", base)
        if base is None:
            base = own
        if own != base:
            raise RecipeError(
                f"slices[{index}]: base_model differs from the recipe's; one base is supported"
            )
    return base


def _competes(document: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    preset = PRESETS.get(str(document.get("merge_method")))
    rule = CONSENSUS.get(parameters.get("consensus", preset.consensus if preset else ""))
    return rule is not None and rule.needs_all


def _models(
    slices: Sequence[Mapping[str, Any]],
    spans: Sequence[tuple[int, int]],
    base: Any,
    competes: bool,
) -> list[dict[str, Any]]:
    """Every model of the slices with its values by layer; one that a slice lacks weighs 0 there."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for index, one in enumerate(slices):
        for item in one["sources"]:
            of = found.setdefault(repr(item.get("model"))[:1000], {})
            if index in of:
                raise RecipeError(f"slices[{index}]: {shown(item.get('model'))} is listed twice")
            of[index] = item
    check_count(len(found))
    models = []
    for of in found.values():
        first = next(iter(of.values()))
        name = str(first.get("model"))[:100]
        values = []
        for index in range(len(slices)):
            item = of.get(index)
            own = (
                parameters_in(item.get("parameters"), f"slices[{index}]: {name}") if item else None
            )
            if own is None and first.get("model") != base:
                if competes:
                    raise RecipeError(
                        f"slices[{index}]: {name} is missing; every slice lists all models"
                    )
                own = {"weight": 0}
            values.append(own or {})
        kept = {key: first[key] for key in first if key not in ("layer_range", "parameters")}
        models.append({**kept, "parameters": _by_layer(values, spans, name)})
    return models


def _by_layer(
    values: Sequence[Mapping[str, Any]], spans: Sequence[tuple[int, int]], where: str
) -> dict[str, Any]:
    """The parameters of several slices as those of one model, each held to its layers."""
    if len(values) == 1:
        return dict(values[0])
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in values for key in one):
        given = [one.get(key) for one in values]
        if all(value == given[0] for value in given) and (
            key not in _SCHEDULED or is_number(given[0])
        ):
            found[key] = given[0]
        elif key in _SCHEDULED:
            pairs = zip(given, spans, strict=True)
            found[key] = [rule for value, span in pairs for rule in _held(value, span)] or None
        else:
            raise RecipeError(
                f"{where}: {key} differs between slices; it holds for the whole recipe, move it to "
                "parameters:"
            )
    return found


def _held(value: Any, span: tuple[int, int]) -> list[dict[str, Any]]:
    """A parameter's value as rules for the layers of one slice."""
    if value is None:
        return []
    rules = value if isinstance(value, list) and value and all(map(_is_mapping, value)) else [value]
    return [
        {**(rule if _is_mapping(rule) else {"value": rule}), "layers": list(span)} for rule in rules
    ]


def parameters_in(value: Any, where: str) -> dict[str, Any]:
    """A recipe's parameters, by name; none where it is silent. Raises RecipeError."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: parameters must be a mapping of names to values")
    return dict(value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)
