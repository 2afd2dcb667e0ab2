"""The models on offer: the built-in family, those in the folders named at the start, and those that
people added where the server's owner allows that.

Clients name models by id only. An id is looked up here and nowhere else, so no request can reach a
path that this list does not hold.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from merging import demo
from merging.checkpoints import Checkpoint, open_checkpoint, open_family
from merging.checkpoints.folders import CONTAINER
from merging.checkpoints.names import DEMO_PREFIX, distinct_names
from merging.checkpoints.stamp import Stamp
from merging.checkpoints.stamp import stamp as file_stamp
from merging.errors import BadFile, MergeError, ModelNotFound, OutputExists
from merging.hub.references import SHORT
from merging.kinship import misfit
from merging.recipe import Recipe
from merging.recipe.references import models_of, with_models
from merging.recipe.stages import needed
from merging.sketches.sketch import FamilySketch
from merging.system.documents import read_object
from merging.system.freed import handed_back
from merging.system.lines import at_line
from merging.system.locks import held
from ui.added import Added, AddedModel
from ui.looks import free_seat

Kind = Literal["demo", "folder", "merged", "hub"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SKETCH_BYTES = 128 << 20  # of families beside the latest one: the disk has them all
RECORD = "amalgam.yaml"  # stands in every folder that a merge wrote
MOST_FOLDERS = 10_000  # of one models folder that are looked at
MOST_MODELS = 1_000  # on offer: a list that a page still shows
_MOST_REASONS = 10  # folders that are named with why they are not on offer


class BadName(MergeError):
    """A name for a new model that cannot be a folder's."""


@dataclass(frozen=True)
class Model:
    """One model on offer.

    Attributes:
        id: what recipes call it ("demo:add", "models/mine").
        label: what lists call it: "mine", or "models/mine" where another one is "mine", too.
        is_added: True where a person added it: it may lie anywhere.
    """

    id: str
    label: str
    folder: Path
    kind: Kind
    is_added: bool = False

    @property
    def shape(self) -> tuple:
        """What the config says of the architecture: equal for models of one family."""
        try:
            config = read_object(self.folder / "config.json")
        except BadFile:
            return ()
        keys = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size")
        return tuple(config.get(key) for key in keys)

    @property
    def layers(self) -> int:
        """How many layers the config says that it has; 0 where it does not say."""
        count = self.shape[2] if self.shape else None
        return count if isinstance(count, int) else 0


class Library:
    """The models on offer and their sketches. Safe to share between threads.

    Args:
        folders: whose subfolders are models.
        cache: where sketches are kept.
        added: the models that people added; None where nobody may.
    """

    def __init__(
        self, folders: Sequence[Path], cache: Path | None = None, added: Added | None = None
    ) -> None:
        self._roots = _name_roots(folders)
        self._cache, self._added = cache, added
        self._lock, self._scanning = threading.Lock(), threading.Lock()
        self._looking = threading.Lock()  # apart from scans, which take longer
        self._models: dict[str, Model] = {}
        self._seats: dict[str, int] = {}
        self._left_out: list[tuple[str, str]] = []
        self._sketches: OrderedDict[tuple, FamilySketch] = OrderedDict()
        self.refresh()

    def refresh(self) -> None:
        """Reads the folders again: new models appear, deleted ones go.

        Whatever lies in them, this ends: what cannot be offered is left out with its reason.
        """
        models = {model.id: model for model in _built_in()}
        left_out: list[tuple[str, str]] = []
        for name, root in self._roots.items():
            entries, problem = _entries(root)
            if problem:
                left_out.append((name, problem))
            for entry in entries:
                folder = root / entry
                looks, reason = _look(folder)
                if reason:
                    left_out.append((_shown(entry), reason))
                elif looks is not None and len(models) >= MOST_MODELS:
                    left_out.append((entry, f"only the first {MOST_MODELS:,} models are"))
                elif looks is not None:
                    key = f"{name}/{entry}"
                    models[key] = Model(key, entry, Path(os.path.realpath(folder)), looks)
        added = self._read_added(left_out)
        for model_id, one in added.items():
            folder = Path(os.path.realpath(one.folder))
            looks, reason = _look(folder)
            if looks is None:
                left_out.append((_shown(one.parts[-1]), reason or "its files are gone"))
            elif folder not in [model.folder for model in models.values()]:
                kind: Kind = "hub" if one.repo else looks
                models[model_id] = Model(model_id, one.parts[-1], folder, kind, is_added=True)
        with self._lock:
            self._models, self._left_out = self._distinct(models, added), left_out
            self._take_seats()

    def _read_added(self, left_out: list[tuple[str, str]]) -> dict[str, AddedModel]:
        """The models that people added and that are whole, by id."""
        try:
            models = self._added.models() if self._added is not None else []
        except BadFile as error:
            left_out.append(("what was added", str(error)))
            return {}
        return {model.id: model for model in models if model.is_whole}

    def _distinct(self, models: dict[str, Model], added: dict[str, AddedModel]) -> dict[str, Model]:
        """The models with labels that are no other's: a folder's is as long as that takes."""
        revisions = Counter(one.repo for one in added.values())
        paths: list[tuple[str, ...]] = []
        for model in models.values():
            shelf, _, entry = model.id.partition("/")
            if model.is_added:
                one = added[model.id]
                mark = f"@{one.commit[:SHORT]}" if one.repo and revisions[one.repo] > 1 else ""
                paths.append((*one.parts[:-1], one.parts[-1] + mark))
            elif entry:
                paths.append((*self._roots[shelf].parts, entry))
            else:
                paths.append((model.id.removeprefix(DEMO_PREFIX),))
        names = zip(models.values(), distinct_names(paths), strict=True)
        return {m.id: m if m.kind == "demo" else replace(m, label=name) for m, name in names}

    def _take_seats(self) -> None:
        """Gives those that are new a seat, in the order in which they were made, so that another
        start gives the same ones; those that have one keep it."""
        seats = {model: seat for model, seat in self._seats.items() if model in self._models}
        new = [model for model in self._models.values() if model.id not in seats]
        for model in sorted(new, key=_made):
            seats[model.id] = free_seat(seats.values())
        self._seats = seats

    def seat(self, model_id: str) -> int:
        """The seat of a model on offer, which its look follows. Raises ModelNotFound."""
        self.get(model_id)
        return self._seats[model_id]

    def misfits(self, base_id: str) -> dict[str, str]:
        """Why models on offer cannot be merged onto a base, by id; those that can are not in it."""
        base = self._models.get(base_id)
        others = [model for model in self._models.values() if model.id != base_id]
        if base is None:
            return {}
        reasons = {model.id: _misfit(base, model) for model in others}
        return {model: reason for model, reason in reasons.items() if reason}

    def opened(self, model_id: str) -> Checkpoint:
        """A model on offer by its headers. Raises MergeError: it is not, or cannot be read."""
        folder = self.get(model_id).folder
        return _opened(folder, stamp(folder))

    def left_out(self) -> list[tuple[str, str]]:
        """(folder's name, reason) of folders that look like models and are not on offer, as of the
        last refresh: a few, and one line for the rest."""
        few, more = self._left_out[:_MOST_REASONS], self._left_out[_MOST_REASONS:]
        count = f"{len(more):,} more folder{'s' * (len(more) > 1)}"
        rest = [(count, "for reasons such as these")] if more else []
        return [*few, *rest]

    def reason(self, entry: str) -> str:
        """Why a folder of this name is not on offer; "" where that is not known."""
        return next((reason for name, reason in self._left_out if name == _shown(entry)), "")

    def roots(self) -> dict[str, Path]:
        """The folders that models are in, by what ids call them."""
        return dict(self._roots)

    def root(self) -> Path:
        """The folder that new models go to. Raises MergeError where none can be written."""
        return self._writable()

    def models(self) -> list[Model]:
        """Every model on offer: built-in ones first, then folders by name."""
        return list(self._models.values())

    def has(self, model_id: str) -> bool:
        """True where a model of this id is on offer."""
        return model_id in self._models

    def get(self, model_id: str) -> Model:
        """Returns the model of this id. Raises ModelNotFound with the nearest id."""
        model = self._models.get(model_id)
        if model is not None:
            return model
        near = difflib.get_close_matches(str(model_id), self._models, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(self._models)}"
        raise ModelNotFound(f"{model_id!r} is not one of the models on offer; {hint}")

    def default_selection(self) -> tuple[str, list[str]]:
        """The base and experts to begin with: the built-in family, else the first that fits."""
        ids = list(self._models)
        built_in = [f"{DEMO_PREFIX}{name}" for name in demo.NAMES if f"{DEMO_PREFIX}{name}" in ids]
        if f"{DEMO_PREFIX}base" in built_in and len(built_in) > 1:
            return built_in[0], built_in[1:]
        sources = [model for model in self.models() if model.kind in ("folder", "hub")]
        if len(sources) < 2:
            return (sources[0].id if sources else ""), []
        base = next(
            (model for model in sources if "base" in model.id.split("/")[-1].lower()), sources[0]
        )
        shape = base.shape
        experts = [m.id for m in sources if m is not base and m.shape == shape]
        return base.id, experts[:4]

    def sketch(
        self,
        base_id: str,
        expert_ids: Sequence[str],
        progress: Callable[..., None] | None = None,
        cancel: threading.Event | None = None,
    ) -> FamilySketch:
        """The sketches of a base and experts, from memory, the disk cache or a scan.

        Raises:
            MergeError: an id is unknown, the models are not one family, or `cancel` was set.
        """
        from merging.sketches.scan import scan

        base = self.get(base_id)
        experts = [self.get(expert_id) for expert_id in expert_ids]
        key = _family_key((base, *experts))
        if (sketched := self._remembered(key)) is not None:
            return sketched
        # who asks for the same family meanwhile finds it
        with held(self._scanning, cancel), handed_back():
            if (sketched := self._remembered(key)) is not None:
                return sketched
            family = open_family(base.folder, {model.id: model.folder for model in experts})
            sketch = replace(
                scan(family, progress=progress, cancel=cancel, cache=self._cache), base=base.id
            )
            self._remember(key, sketch)
        return sketch

    def _remember(self, key: tuple, sketch: FamilySketch) -> None:
        """Keeps a sketch, and of the others those used last that fit beside it."""
        with self._lock:
            self._sketches[key] = sketch
            beside = 0
            for other in [stored for stored in reversed(self._sketches) if stored != key]:
                beside += self._sketches[other].size_bytes
                if beside > SKETCH_BYTES:
                    del self._sketches[other]

    def preview(
        self,
        base_id: str,
        expert_ids: Sequence[str],
        cancel: threading.Event | None = None,
    ) -> FamilySketch | None:
        """A first look at a family; None where `sketch` will not take long.

        Raises:
            MergeError: as `sketch`.
        """
        from merging.sketches.preview import preview
        from merging.sketches.scan import cached

        base, experts = self.get(base_id), [self.get(expert_id) for expert_id in expert_ids]
        if self._remembered(_family_key((base, *experts))) is not None:
            return None
        family = open_family(base.folder, {model.id: model.folder for model in experts})
        if self._cache is not None and cached(family, self._cache) is not None:
            return None
        with held(self._looking, cancel):  # who is here first may have to wait for the compiler
            look = preview(family, cancel)
        return look and replace(look, base=base.id)

    def _remembered(self, key: tuple) -> FamilySketch | None:
        with self._lock:
            if key in self._sketches:
                self._sketches.move_to_end(key)
            return self._sketches.get(key)

    def sketched(self, recipe: Recipe) -> FamilySketch | None:
        """The sketch of a recipe's family, where it is in memory."""
        experts = [source.model for source in recipe.sources if source.model != recipe.base]
        try:
            models = [self._model(reference) for reference in (recipe.base, *experts) if reference]
        except MergeError:
            return None
        return self._remembered(_family_key(models))

    def resolved(self, recipe: Recipe) -> Recipe:
        """The recipe with every model checked to be on offer and readable from its folder.

        A folder written out in full is accepted where it is that of a model on offer, so that the
        recipe kept beside a result can be opened again.

        Raises:
            ModelNotFound: the recipe names something that is not on offer.
        """
        recipe = needed(recipe)
        if recipe.stages:
            raise ModelNotFound(
                "the recipe uses the results of others in its file, which is done on the command "
                "line alone: amalgam merge FILE OUT"
            )
        references = models_of(recipe)
        models = []
        for name in references:
            with at_line(recipe.lines.get(name)):
                models.append(self._model(name))
        roots = {root.parent for root in map(self._root_of, models) if root is not None}
        if len(roots) <= 1 and all(self._reads_as_written(model) for model in models):
            names, folder = [model.id for model in models], next(iter(roots), None)
        else:
            names = [m.id if m.kind == "demo" else str(m.folder) for m in models]
            folder = None
        recipe = replace(recipe, folder=folder)
        return with_models(recipe, dict(zip(references, names, strict=True)))

    def folder_of(self, name: str) -> Path:
        """The folder that a new model of this name gets.

        Raises:
            BadName: not a plain name.
            MergeError: no models folder can be written.
        """
        return self._writable() / self.plain_name(name)

    def plain_name(self, name: str) -> str:
        """A name for a folder, without what stands around it. Raises BadName."""
        name = (name or "").strip()
        if not name:
            raise BadName("give the new model a name")
        if not _NAME.fullmatch(name) or name.endswith("."):
            raise BadName(
                "a name has 1 to 64 letters, digits, dots, dashes or underscores and begins with "
                "a letter or digit"
            )
        return name

    def new_folder(self, name: str) -> Path:
        """As `folder_of`; it does not exist yet.

        Raises:
            OutputExists: taken; the message suggests a free name.
        """
        folder = self.folder_of(name)
        if os.path.lexists(folder):
            raise OutputExists(f"{name.strip()} is taken; {self.free_name(name)} is free")
        return folder

    def free_name(self, name: str) -> str:
        """`name`, or the next of name-2, name-3... that is not taken."""
        name = (re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "merge")[:56]
        root = self._writable()
        if not os.path.lexists(root / name):
            return name
        stem, dash, number = name.rpartition("-")
        if not dash or not re.fullmatch(r"[1-9]\d{0,3}", number):
            stem, number = name, "1"
        count = int(number) + 1
        while os.path.lexists(root / f"{stem}-{count}"):
            count += 1
        return f"{stem}-{count}"

    def id_of(self, folder: Path) -> str:
        """The id of a folder on offer, "" if it is none."""
        try:
            real = Path(os.path.realpath(folder))
        except (OSError, ValueError):  # no folder has such a name
            return ""
        return next((model.id for model in self.models() if model.folder == real), "")

    def model_of(self, reference: str) -> Model:
        """The model that a recipe names, by its id or its folder. Raises ModelNotFound."""
        return self._model(reference)

    def by_id(self, recipe: Recipe) -> Recipe:
        """A recipe with its models called by their ids. Raises ModelNotFound."""
        return with_models(recipe, {name: self._model(name).id for name in models_of(recipe)})

    def labels(self, recipe: Recipe) -> dict[str, str]:
        """What lists call the models of a recipe whose models are all on offer, by reference."""
        return {reference: self._model(reference).label for reference in models_of(recipe)}

    def called(self, recipe: Recipe) -> dict[str, str]:
        """As `labels`; models that are not on offer by their folders' names."""
        return {reference: self._called(reference) for reference in models_of(recipe)}

    def _called(self, reference: str) -> str:
        try:
            return self._model(reference).label
        except ModelNotFound:
            return Path(reference).name or reference

    def _model(self, reference: str) -> Model:
        model_id = self.id_of(Path(reference)) if Path(reference).is_absolute() else ""
        return self.get(model_id or reference)

    def _root_of(self, model: Model) -> Path | None:
        """The models folder that a model is in; None for one that is in none."""
        if model.kind == "demo" or model.is_added:
            return None
        return self._roots[model.id.partition("/")[0]]

    def _reads_as_written(self, model: Model) -> bool:
        """True where the id, read as a path beside the models folder, is the model's folder."""
        if model.kind == "hub":
            return False
        root = self._root_of(model)
        return root is None or (root.parent / model.id).resolve() == model.folder

    def _writable(self) -> Path:
        for root in self._roots.values():
            nearest = next(path for path in (root, *root.parents) if os.path.exists(path))
            if os.access(nearest, os.W_OK):
                return root
        raise MergeError(
            f"none of {', '.join(str(root) for root in self._roots.values())} can be written; "
            "start with --models and a folder of yours"
        )


def _name_roots(folders: Sequence[Path]) -> dict[str, Path]:
    """Names each models folder by its last part; a second one of the same name gets a number."""
    roots: dict[str, Path] = {}
    for folder in dict.fromkeys(Path(os.path.realpath(folder)) for folder in folders):
        name, count = folder.name or "models", 1
        while name in roots:
            count += 1
            name = f"{folder.name}~{count}"
        roots[name] = folder
    return roots


def _built_in() -> list[Model]:
    return [
        Model(f"{DEMO_PREFIX}{name}", f"{DEMO_PREFIX}{name}", demo.folder(name), "demo")
        for name in demo.NAMES
        if _is_model(demo.folder(name))
    ]


def _made(model: Model) -> tuple:
    """Sorts models by when they were made: built-in experts, their base, folders by age."""
    if model.kind == "demo":
        return (0, model.id == f"{DEMO_PREFIX}{demo.NAMES[0]}", 0, "")
    config = model.folder / "config.json"
    age = config.stat().st_mtime_ns if config.is_file() else 0
    return (1, False, age, model.id)


def _misfit(base: Model, model: Model) -> str:
    """Why a model cannot be merged onto a base; "" where it can."""
    if base.kind == model.kind == "demo":
        return ""
    return _misfit_of(base.folder, stamp(base.folder), model.folder, stamp(model.folder))


@functools.lru_cache(maxsize=4 * MOST_MODELS)
def _misfit_of(base: Path, _its: tuple, model: Path, _own: tuple) -> str:
    """As `_misfit`. Headers are read once as long as the files stay."""
    try:
        root = _opened(base, stamp(base))
    except MergeError:
        return ""  # what is wrong with the base is said of the base
    try:
        return misfit(root, _opened(model, stamp(model)))
    except MergeError as error:
        return str(error).removeprefix(f"{model.name}: ")


@functools.lru_cache(maxsize=8)
def _opened(folder: Path, _stamp: tuple) -> Checkpoint:
    return open_checkpoint(folder)


def _is_model(folder: Path) -> bool:
    return _look(folder)[0] is not None


def not_offered(folder: Path) -> str:
    """Why a folder could not be on offer; "" where it could."""
    kind, reason = _look(folder)
    return "" if kind else reason or "no model's folder"


def _entries(root: Path) -> tuple[list[str], str]:
    """The names in a models folder, sorted, hidden ones apart, and why there are no more of them.
    A folder that is not there has none."""
    try:
        names = sorted(name for name in os.listdir(root) if not name.startswith("."))
    except FileNotFoundError:
        return [], ""
    except OSError as error:
        return [], f"it cannot be listed ({_words(error)})"
    if len(names) <= MOST_FOLDERS:
        return names, ""
    return names[:MOST_FOLDERS], (
        f"only the first {MOST_FOLDERS:,} of the {len(names):,} names in it are looked at"
    )


def _look(folder: Path) -> tuple[Kind | None, str]:
    """What a folder is, and why it is not offered although it looks like a model."""
    try:
        if not os.path.isdir(folder):
            return None, ""
        names = set(os.listdir(folder))
    except OSError as error:
        return None, f"it cannot be opened ({_words(error)})"
    if CONTAINER in names:
        return None, "a container of several tasks: amalgam materialise makes a model of each"
    has_weights = any(name.endswith(".safetensors") for name in names)
    if not has_weights and any(name.endswith((".bin", ".pt", ".pth")) for name in names):
        return None, "pickle weights; save it as safetensors"
    if "config.json" not in names:
        return None, "no config.json" if has_weights else ""
    if not has_weights:
        return None, "a config and no *.safetensors file"
    if not folder.name.isprintable():
        return None, "its name holds characters that cannot be shown"
    config = folder / "config.json"
    reason = _wrong_config(config, file_stamp(config))
    if reason:
        return None, f"config.json: {reason}"
    return ("merged" if os.path.isfile(folder / RECORD) else "folder"), ""


@functools.lru_cache(maxsize=2 * MOST_MODELS)
def _wrong_config(config: Path, _stamp: Stamp | None) -> str:
    """What is wrong with a config; "" where nothing is. Read once as long as the file stays."""
    try:
        read_object(config)
    except BadFile as error:
        return str(error).removeprefix(f"{config}: ")
    return ""


def _shown(name: str) -> str:
    """A name of a file with what cannot be shown written out."""
    return name if name.isprintable() else ascii(name)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _family_key(models: Sequence[Model]) -> tuple:
    return tuple((model.id, model.folder, stamp(model.folder)) for model in models)


def stamp(folder: Path) -> tuple:
    """Changes when the folder's weights, index or config do."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return ()
    own = (name for name in names if name.endswith((".safetensors", ".index.json", "config.json")))
    return tuple((name, file_stamp(folder / name)) for name in own)
