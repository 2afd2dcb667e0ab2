"""A merge that writes all tasks at once: `container: true` in a recipe (`checkpoints.container`).

As an attempt at a model (`run.attempt`) it works in a hidden folder, reads back what it wrote and
lets it appear at the end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial

from merging.checkpoints import (
    Entry,
    Family,
    ModelWriter,
    TensorSpec,
    container,
    short_names,
)
from merging.checkpoints.checksum import checksum
from merging.checkpoints.container import CHANGE, Container, Task
from merging.checkpoints.folders import CONTAINER
from merging.checkpoints.names import DEMO_PREFIX
from merging.checkpoints.output import in_words
from merging.declarations.methods import Pruning, Shares
from merging.engines.eager import Stream, TensorReader
from merging.errors import NonFinite, RecipeError, VerificationFailed
from merging.instructions import needs_of
from merging.later import torch
from merging.methods import PRESETS
from merging.recipe import Recipe
from merging.run import companions, record
from merging.run.attempt import Finished, Order
from merging.run.lowering import passes
from merging.run.measuring import measure_shares
from merging.run.tensors import specs_of as model_specs

_STEP = 16  # entries: two bytes of a mask, so that checksums of its pieces add up


def asked(recipe: Recipe) -> bool:
    """True where a recipe asks for a container."""
    return bool(recipe.parameters.get("container", False))


def specs_of(family: Family, recipe: Recipe) -> list[TensorSpec]:
    """The tensors of what a recipe writes: of a model, or of a container."""
    if not asked(recipe):
        return model_specs(family, recipe)
    files = [task.file for task in _tasks(recipe, [1.0] * len(family.experts))]
    shared = [TensorSpec(one.name, "F32", _shape(one), CHANGE) for one in family.merged]
    masks = [
        TensorSpec(one.name, "U8", (-(-one.numel // 8),), file)
        for file in files
        for one in family.merged
    ]
    return shared + masks


def _shape(entry: Entry) -> tuple[int, ...]:
    return entry.shape if entry.rows is None else (entry.rows, *entry.shape[1:])


def _tasks(recipe: Recipe, factors: list[float]) -> list[Task]:
    names = short_names([source.model for source in recipe.sources], recipe.folder)
    return container.tasks_of([name.removeprefix(DEMO_PREFIX) for name in names], factors)


@dataclass(frozen=True)
class _Draft:
    """A container in the making.

    Attributes:
        sums: checksums of what was handed to the writer, by file and tensor.
    """

    order: Order
    stream: Stream
    writer: ModelWriter
    tasks: list[Task]
    sums: dict[tuple[str, str], int] = field(default_factory=dict)

    def write(self, file: str, name: str, start: int, values: torch.Tensor) -> None:
        """Writes elements of one tensor, from element `start` on."""
        data = values.contiguous().cpu().view(torch.uint8).numpy().data
        self.writer.write(name, start, data, file)
        key = file, name
        self.sums[key] = self.sums.get(key, 0) + checksum(data, start * values.element_size())


def attempt(order: Order, device: str, chunk: int | None, resident: bool) -> Finished:
    """Writes the container. Arguments as `run.attempt.attempt`; it always begins anew."""
    recipe, family = order.recipe, order.family
    if family.base.parts:
        raise RecipeError(
            f"container: {family.base.name} is made of slices, which a container cannot name; "
            "merge one task after the other, with task: 1, 2..."
        )
    stream = Stream(
        family,
        device=device,
        passes=passes(recipe) + 2,
        progress=order.progress,
        cancel=order.cancel,
        chunk=chunk,
        source=order.residents.source(family, device) if resident else None,
    )
    pruning, shares = measure_shares(recipe, stream)
    writer = ModelWriter(order.out, specs_of(family, recipe), overwrite=order.overwrite)
    try:
        draft = _Draft(order, stream, writer, _tasks(recipe, list(shares.factors)))
        stream.map(lambda reader: _split(draft, reader, pruning, shares), "merge")
        digest, files = _read_back(draft)
        _publish(draft, digest, files)
    except BaseException as error:
        writer.discard()
        raise in_words(error, order.out) from error
    named = ", ".join(task.name for task in draft.tasks)
    notes = [f"a container of {named}: amalgam materialise CONTAINER TASK OUT makes a model of one"]
    notes += ["a container is always begun anew"] if order.resume else []
    return Finished(digest, stream.engine, {}, notes=tuple(notes))


def _split(draft: _Draft, reader: TensorReader, pruning: Pruning, shares: Shares) -> None:
    """Writes one tensor's change and masks. Called from any thread."""
    name, decisions = reader.entry.name, pruning(reader)
    rests = [torch.zeros(0, dtype=torch.bool) for _ in draft.tasks]
    for start, stop in reader.spans(needs_of(decisions)):
        change, masks = shares.split(reader, reader.pruned(decisions, start, stop))
        if not bool(torch.isfinite(change).all()):
            raise reader.culprit(NonFinite(f"tensor {name}: the shared change is not finite"))
        draft.write(CHANGE, name, start, change)
        for index, (task, mask) in enumerate(zip(draft.tasks, masks, strict=True)):
            bits = torch.cat([rests[index], mask.cpu()])
            first = start - rests[index].numel()
            whole = bits.numel() if stop == reader.numel else bits.numel() // _STEP * _STEP
            draft.write(task.file, name, first // 8, container.packed(bits[:whole]))
            rests[index] = bits[whole:]


def _read_back(draft: _Draft) -> tuple[str, dict[str, str]]:
    """The fingerprint of all files, and of each.

    Raises:
        VerificationFailed: a tensor reads back otherwise than it was written.
    """
    draft.writer.flush()  # the disk works meanwhile
    entries = {entry.name: entry for entry in draft.order.family.merged}
    files: dict[str, str] = {}
    every: list[bytes] = []
    for file in (CHANGE, *(task.file for task in draft.tasks)):
        sums: dict[str, int] = {}

        counts = int(file == CHANGE)  # for the progress

        def see(
            sums: dict[str, int], counts: int, name: str, block: memoryview, start: int
        ) -> None:
            draft.stream.check_cancelled()
            sums[name] = sums.get(name, 0) + checksum(block, start)
            draft.stream.advance("verify", entries[name], counts * len(block) // 4)

        opened = container.open_file(draft.writer.folder, file)
        own = container.digests(opened, partial(see, sums, counts))
        for name in entries:
            if (sums.get(name, 0) - draft.sums.get((file, name), 0)) % (1 << 64):
                raise VerificationFailed(
                    f"{draft.order.out}: {file}: tensor {name} reads back otherwise than it was "
                    "written; the disk or the memory is at fault: choose another disk"
                )
        files[file] = container.combined(own)
        every += own
    return container.combined(every), files


def _publish(draft: _Draft, digest: str, files: dict[str, str]) -> None:
    """Writes what stands beside the tensors; the container appears."""
    order, folder = draft.order, draft.writer.folder
    recipe, family = order.recipe, order.family
    record.write_config(folder, recipe, family)
    inputs = record.inputs_of(family)
    companions.write(folder, recipe, family)
    record.write_record(folder, recipe, family, digest, inputs)
    whole = Container(
        folder,
        record.portable(recipe).base,
        inputs[family.base.name],
        inputs,
        files,
        tuple(draft.tasks),
        *(
            {one.name: one.reason for one in family.account if one.status == status}
            for status in ("copied", "left_out")
        ),
    )
    text = json.dumps(container.document(whole, recipe.method), indent=2, ensure_ascii=False)
    (folder / CONTAINER).write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(recipe, draft.tasks), encoding="utf-8")
    for model in family.models:
        model.check_unchanged()  # else the record would vouch for other bytes
    draft.writer.publish(draft.stream.check_cancelled)


def _card(recipe: Recipe, tasks: list[Task]) -> str:
    named = "\n".join(f"- `{task.name}`" for task in tasks)
    return (
        f"# {PRESETS[recipe.method].title}: a container\n\nNo model itself: one change that all "
        "tasks share, and a mask and a factor of each. With the base, `amalgam materialise "
        f"CONTAINER TASK OUT` makes a model of any:\n\n{named}\n"
    )


__all__ = ["asked", "attempt", "specs_of"]
