"""mergekit's long forms of a recipe, read as its short form: models with values per layer.

A recipe may hold its models in `slices`, or under `modules`. Slices that follow each other and
together are whole models restack nothing: what a slice says becomes rules for its layers. Other
slices make a blueprint (`merging.declarations.blueprints`), whose models are stacked. As in
mergekit, a gradient runs over the layers of one slice, what comes before the layers takes the
first slice's models and values, final norm and head the last's. A filter of a model's own value is
looked for in that model's names, of a value of all models in the result's.

Where we differ from mergekit: what a method measures over the whole model, and what no knob calls
`scheduled`, slices may not differ in (one line says so); a weight that nobody gives is 1, where
mergekit asks for it; slices may list other numbers of models (what a slice lacks changes
nothing there; mergekit merges what is there, with the first slice's number for norm and head), one
model may be listed twice in a slice with other layers (mergekit takes the last in silence), and a
base that a slice does not list is taken by the layers of its sources.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from merging.checkpoints.layout import is_tower
from merging.declarations.blueprints import Blueprint, Column, Piece
from merging.declarations.schedules import before, is_silent
from merging.errors import RecipeError, shown
from merging.recipe.references import place_of, reference
from merging.recipe.stray import unknown
from merging.recipe.values import HARMLESS
from merging.system.lines import Lined, at_line, line_in, within

MAX_MODELS = 256
MAX_SLICES = 256
_WHOLE = ("default", "text_decoder", "language_model", "text_model", "decoder", "model", "llm")
"""Names of a module that is all of a model of one text stack."""
_SLICE_KEYS = ("sources", "parameters", "base_model", "residual_weight")
_MODULE_KEYS = ("models", "slices", "parameters")
_SOURCE_KEYS = ("model", "layer_range", "parameters")

Values = dict[str, Any]


@dataclass(frozen=True)
class Unsliced:
    """A recipe's document with its models listed under models.

    Attributes:
        spans: of its slices, counted in the result's layers; empty where it has none.
        blueprint: of a stack of layers; its columns are the models listed, by their titles.
        notes: remarks for the user.
        lines: of the slices in the recipe's text; None for those without one.
    """

    document: Mapping[str, Any]
    spans: tuple[tuple[int, int], ...] = ()
    blueprint: Blueprint | None = None
    notes: tuple[str, ...] = ()
    lines: tuple[int | None, ...] = ()

    @property
    def layers(self) -> int | None:
        """How many layers the slices name; None without slices."""
        return self.spans[-1][1] if self.spans else None

    def blueprint_of(self, sources: Sequence[str], titles: Sequence[str]) -> Blueprint | None:
        """The blueprint of those models alone that take part.

        Args:
            sources: their titles.
            titles: of all models listed.
        """
        if self.blueprint is None:
            return None
        columns = dict(zip(titles, self.blueprint.sources, strict=True))
        return replace(self.blueprint, sources=tuple(columns[title] for title in sources))


class _Item(NamedTuple):
    """A source of one slice, its own values, and where it stands."""

    piece: Piece
    values: Values
    line: int | None = None

    def called(self, names: Mapping[str, str]) -> _Item:
        return self._replace(piece=self.piece._replace(model=names[self.piece.model]))


def unsliced(
    document: Mapping[str, Any], folder: Path | None, scheduled: Collection[str], *,
    among: bool = False,
) -> Unsliced:  # fmt: skip
    """A recipe's document with its models listed under models.

    Args:
        folder: that relative references are read against.
        scheduled: parameters that may change along the model.
        among: True where a base that is listed is one model among others.

    Raises:
        RecipeError: a part is malformed.
    """
    with within(document, "modules"):
        document = _one_module(document)
    if "slices" not in document:
        return Unsliced(document)
    with within(document, "slices"):
        return _unsliced(document, folder, scheduled, among=among)


def _unsliced(
    document: Mapping[str, Any], folder: Path | None, scheduled: Collection[str], *, among: bool
) -> Unsliced:
    slices = document["slices"]
    if "models" in document:
        raise RecipeError("slices: give models or slices, not both")
    if not isinstance(slices, list) or not slices or not all(map(_is_mapping, slices)):
        raise RecipeError("slices: list one slice with all layers, or several")
    if len(slices) > MAX_SLICES:
        raise RecipeError(f"slices: {len(slices)} are given, at most {MAX_SLICES} are read")
    rows = [_items(slices, index) for index in range(len(slices))]
    check_count(len({item.piece.model for row in rows for item in row}))
    bases = [_base(document, one) for one in slices]
    names = _names(rows, bases, folder)
    rows = [[item.called(names) for item in row] for row in rows]
    _check_once(rows)
    bases = [base and names[base] for base in bases]
    base = _base_items(rows, bases)
    columns = _columns(rows, base, among=among)
    check_count(len(columns))
    blueprint = Blueprint(
        tuple(piece for piece, _ in base),
        tuple(tuple(item and item.piece for item in column) for column in columns),
    )
    spans = blueprint.spans
    titles = blueprint.titles(folder)
    models = [
        {"model": title, "parameters": _by_layer(_own(column), spans, title, scheduled)}
        for title, column in zip(titles[1:], columns, strict=True)
    ]
    parameters = _parameters_of(document, "parameters")
    own = [_parameters_of(one, f"slices[{index}]") for index, one in enumerate(slices)]
    _put_before(_by_layer(own, spans, "slices", scheduled), parameters)
    rest = {key: document[key] for key in document if key != "slices"}
    rest |= {"models": models, "parameters": parameters}
    rest["base_model"] = titles[0] if bases[0] is not None else None
    plain = _restacks_nothing(blueprint)
    lines = tuple(line_in(slices, index) for index in range(len(slices)))
    return Unsliced(rest, spans, None if plain else blueprint, _notes(slices), lines)


def check_count(models: int) -> None:
    """Raises RecipeError where a recipe lists more models than are merged at once."""
    if models > MAX_MODELS:
        raise RecipeError(
            f"models: {models} are listed, at most {MAX_MODELS} are merged at once; merge some of "
            "them first, then the results"
        )


def check_gaps(
    blueprint: Blueprint | None, method: str, *, weighs: bool, lines: Sequence[int | None] = ()
) -> None:
    """Raises RecipeError where a slice lacks a model that the others list, and the method cannot
    do without it.

    Args:
        weighs: True where a model of weight 0 is as if it were not listed.
        lines: of the slices in the recipe's text; none where it has no text.
    """
    if blueprint is None or weighs:
        return
    for index, row in enumerate(zip(*blueprint.sources, strict=True)):
        if None in row:
            count = sum(piece is not None for piece in row)
            raise RecipeError(
                f"slices[{index}]: a model is missing: {count} of {len(row)} are listed, and "
                f"{method} needs as many in every slice",
                line=lines[index] if lines else None,
            )


def parameters_in(value: Any, where: str) -> dict[str, Any]:
    """A recipe's parameters, by name; none where it is silent. Raises RecipeError."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecipeError(f"{where}: parameters must be a mapping of names to values")
    return dict(value)


def _parameters_of(part: Mapping[str, Any], where: str) -> Values:
    """The parameters of a recipe, a module, a slice or a source, by name. Raises RecipeError."""
    with within(part, "parameters"):
        return parameters_in(part.get("parameters"), where)


def _put_before(first: Values, parameters: Values) -> None:
    """Puts what a part says before what is said of all; keys stay on the lines of what counts
    first."""
    for key, value in first.items():
        held = before(value, parameters.pop(key)) if key in parameters else value
        parameters[key] = held


def _one_module(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """A document whose only module is the whole model, without it."""
    if "modules" not in document:
        return document
    modules = document["modules"]
    if not isinstance(modules, dict) or not modules:
        raise RecipeError(f"modules: {shown(modules)}: name one, default, with models or slices")
    if len(modules) > 1:
        names = ", ".join(map(str, modules))
        raise RecipeError(
            f"modules: parts of a model are not merged apart (here: {names[:100]}); give one "
            "module named default, or list whole models under models:"
        )
    ((name, inside),) = modules.items()
    if name not in _WHOLE:
        part = "images or sound" if is_tower(name) else "a part of a model"
        raise RecipeError(
            f"modules: {shown(name)} is {part}, which is not merged by itself; name the module "
            "default (the whole model), and list under keep_base: what is to stay",
            line=line_in(modules, name),
        )
    if not isinstance(inside, dict):
        raise RecipeError(f"modules: {name}: needs models: or slices:")
    for key in inside:
        if key not in _MODULE_KEYS:
            raise unknown(key, f"modules: {name}", _MODULE_KEYS, short=False)
        if key != "parameters" and {"models", "slices"} & set(document):
            raise RecipeError("modules: give models or slices inside the module or outside it")
    parameters = _parameters_of(document, "parameters")
    _put_before(_parameters_of(inside, f"modules: {name}"), parameters)
    rest = {key: document[key] for key in document if key != "modules"}
    return rest | {k: inside[k] for k in inside if k != "parameters"} | {"parameters": parameters}


def _items(slices: Sequence[Mapping[str, Any]], index: int) -> list[_Item]:
    """The sources of a slice."""
    where, one = f"slices[{index}]", slices[index]
    for key in one:
        if key not in _SLICE_KEYS:
            raise unknown(key, where, _SLICE_KEYS, short=False)
    sources = one.get("sources")
    with at_line(line_in(one, "sources") or line_in(slices, index)):
        if not isinstance(sources, list) or not sources or not all(map(_is_mapping, sources)):
            raise RecipeError(
                f"{where}: sources: list at least one model and its layer_range, or give one slice "
                "with all layers"
            )
    items: list[_Item] = []
    for place, source in enumerate(sources):
        with within(sources, place):
            items.append(_item(source, where)._replace(line=line_in(sources, place)))
            with within(source, "layer_range"):
                _check_length(items[-1].piece, items[0].piece, where)
    return items


def _check_length(piece: Piece, first: Piece, where: str) -> None:
    if piece.stop - piece.start != first.stop - first.start:
        raise RecipeError(
            f"{where}: layer_range {_range(piece)} of {piece.model} beside {_range(first)} of "
            f"{first.model}: the sources of a slice are merged layer by layer, so they have as "
            "many layers; change one, or make two slices"
        )


def _item(source: Mapping[str, Any], where: str) -> _Item:
    for key in source:
        if key not in _SOURCE_KEYS:
            raise unknown(key, f"{where}: sources", _SOURCE_KEYS, short=False)
    with within(source, "model"):
        model = reference(source.get("model"), where)
    with within(source, "layer_range"):
        start, stop = _layer_range(source.get("layer_range"), model, where)
    return _Item(Piece(model, start, stop), _parameters_of(source, f"{where}: {model}"))


def _layer_range(layers: Any, model: str, where: str) -> tuple[int, int]:
    if not isinstance(layers, list) or [type(side) for side in layers] != [int, int]:
        raise RecipeError(
            f"{where}: layer_range of {model} must be [first layer, last layer + 1], such as "
            f"[0, 16], not {shown(layers)}"
        )
    start, stop = layers
    if 0 <= stop < start:
        raise RecipeError(
            f"{where}: layer_range {layers} of {model} ends before it begins; did you mean "
            f"[{stop}, {start}]?"
        )
    if not 0 <= start < stop:
        raise RecipeError(f"{where}: layer_range {layers} of {model} holds no layer; write [0, 16]")
    return start, stop


def _range(piece: Piece) -> str:
    return f"[{piece.start}, {piece.stop}]"


def _names(
    rows: Sequence[Sequence[_Item]], bases: Sequence[str | None], folder: Path | None
) -> dict[str, str]:
    """One name for every model, however it is written: the base's own first."""
    written = [*filter(None, bases), *(item.piece.model for row in rows for item in row)]
    places: dict[str, str] = {}
    return {name: places.setdefault(place_of(name, folder), name) for name in written}


def _base(document: Mapping[str, Any], one: Mapping[str, Any]) -> str | None:
    """The base that a slice names, or the recipe's."""
    part = one if one.get("base_model") is not None else document
    base = part.get("base_model")
    with within(part, "base_model"):
        return None if base is None else reference(base, "base_model")


def _check_once(rows: Sequence[Sequence[_Item]]) -> None:
    for index, row in enumerate(rows):
        for place, item in enumerate(row):
            if any(other.piece == item.piece for other in row[:place]):
                raise RecipeError(
                    f"slices[{index}]: {item.piece.model} is listed twice; give it once, with its "
                    "weight",
                    line=item.line,
                )


def _base_items(
    rows: Sequence[Sequence[_Item]], bases: Sequence[str | None]
) -> list[tuple[Piece, int | None]]:
    """Of every slice: the base's layers, and its place among the sources (None: not listed)."""
    first = rows[0][0].piece.model
    result: list[tuple[Piece, int | None]] = []
    for index, (row, base) in enumerate(zip(rows, bases, strict=True)):
        models = [item.piece.model for item in row]
        if base is None:
            base = first if first in models else models[0]
        if base in models:
            place = models.index(base)
            result.append((row[place].piece, place))
            continue
        ranges = {_range(item.piece) for item in row}
        if len(ranges) > 1:
            raise RecipeError(
                f"slices[{index}]: its sources have the layers {' and '.join(sorted(ranges))}; "
                f"list the base {base} among them, with its own layer_range",
                line=row[0].line,
            )
        result.append((row[0].piece._replace(model=base), None))
    return result


def _columns(
    rows: Sequence[Sequence[_Item]], base: Sequence[tuple[Piece, int | None]], *, among: bool
) -> list[list[_Item | None]]:
    """The models of the merge: for each, its source in every slice. The base is one of them where
    a slice lists it; of weight 0 where others do not, but where it is one model among others."""
    if among and None in {place for _, place in base} and len(set(map(len, rows))) == 1:
        return _by_place(rows)
    others = [
        [item for at, item in enumerate(row) if at != place]
        for row, (_, place) in zip(rows, base, strict=True)
    ]
    columns = _by_place(others) if len(set(map(len, others))) == 1 else _by_model(others)
    places = [place for _, place in base]
    listed = next((place for place in places if place is not None), None)
    if listed is not None:
        column: list[_Item | None] = [
            _Item(piece, {"weight": 0}) if place is None else row[place]
            for row, (piece, place) in zip(rows, base, strict=True)
        ]
        columns.insert(min(listed, len(columns)), column)
    return columns


def _by_place(rows: Sequence[Sequence[_Item]]) -> list[list[_Item | None]]:
    """As many sources in every slice: each model by itself where all slices list the same ones,
    else the first of every slice, the second..."""
    models = [[item.piece.model for item in row] for row in rows]
    same = len(set(models[0])) == len(models[0]) and all(
        sorted(row) == sorted(models[0]) for row in models
    )
    ordered = [
        sorted(row, key=lambda item: models[0].index(item.piece.model)) if same else row
        for row in rows
    ]
    return [list(column) for column in zip(*ordered, strict=True)]


def _by_model(rows: Sequence[Sequence[_Item]]) -> list[list[_Item | None]]:
    """Each model by itself, with a gap where a slice does not list it."""
    columns: list[list[_Item | None]] = []
    names: list[str] = []
    for index, row in enumerate(rows):
        for item in row:
            free = (
                column
                for column, name in zip(columns, names, strict=True)
                if name == item.piece.model and column[index] is None
            )
            column = next(free, None)
            if column is None:
                column = [None] * len(rows)
                columns.append(column)
                names.append(item.piece.model)
            column[index] = item
    return columns


def _restacks_nothing(blueprint: Blueprint) -> bool:
    """True for whole models, slice by slice."""
    for column in (blueprint.base, *blueprint.sources):
        if len({piece and piece.model for piece in column}) > 1:
            return False
        if any((one.start, one.stop) != span for one, span in _pairs(column, blueprint.spans)):
            return False
    return True


def _pairs(column: Column, spans: Sequence[tuple[int, int]]) -> list[tuple[Piece, tuple[int, int]]]:
    return [(one, span) for one, span in zip(column, spans, strict=True) if one is not None]


def _own(column: Sequence[_Item | None]) -> list[Values | None]:
    """A model's values in every slice; None where one does not list it."""
    return [item and item.values for item in column]


def _notes(slices: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    if not any("residual_weight" in one for one in slices):
        return ()
    return ("slices: residual_weight has no effect, here as in mergekit",)


def _by_layer(
    values: Sequence[Values | None],
    spans: Sequence[tuple[int, int]],
    where: str,
    scheduled: Collection[str],
) -> Values:
    """The parameters of several slices as those of one model, each held to its layers. A model
    changes nothing where a slice does not list it (None)."""
    if len(values) == 1:
        return dict(values[0] or {})
    result: Values = {}
    every = [{"weight": 0} if one is None else one for one in values]
    for key in dict.fromkeys(key for one in every for key in one):
        listed = every if key in scheduled else [one for one in values if one is not None]
        levels = [one.get(key) for one in listed]
        if all(value == levels[0] for value in levels) and (
            key not in scheduled or not isinstance(levels[0], dict | list)
        ):
            result[key] = levels[0]
        elif key in scheduled:
            pairs = zip(listed, spans, strict=True)
            result[key] = [rule for one, span in pairs for rule in _held(one, key, span)] or None
        elif key in HARMLESS:
            result[key] = next(value for value in levels if value is not None)
        else:
            other = next(one for one in listed if one.get(key) != levels[0])
            raise RecipeError(
                f"{where}: {key} differs between slices; it holds for the whole recipe, move it to "
                "parameters:",
                line=line_in(other, key) or line_in(listed[0], key),
            )
    return result


def _held(values: Values, key: str, span: tuple[int, int]) -> list[Values]:
    """A parameter's value as rules for the layers of one slice."""
    value = values.get(key)
    if is_silent(value):
        return []
    rules = value if isinstance(value, list) and value and all(map(_is_mapping, value)) else [value]
    own: str = Lined("value", line_in(values, key))
    held: list[Values] = [dict(one) if isinstance(one, dict) else {own: one} for one in rules]
    return [rule if rule.get("layers") else {**rule, "layers": list(span)} for rule in held]


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)
