"""Tokenizers compared: whether the same row of an embedding stands for the same token.

A merge adds up embeddings row by row. Where two tokenizers give one id to two tokens, or an
expert's tokens are unknown to the tokenizer that the result gets, the sums mean nothing, and no
shape shows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from merging.checkpoints import Checkpoint
from merging.checkpoints.aliases import input_embedding
from merging.kinship import vocabulary
from merging.kinship.problem import Problem, Severity, called, grouped, have, listed
from merging.kinship.vocabulary import Vocabulary

_SPARE = re.compile(r"reserved|unused|extra_id|dummy|placeholder|madeupword|<pad>|\[PAD", re.I)
_SPECIAL: dict[str, Severity] = {
    "eos_token": "warning",
    "bos_token": "warning",
    "unk_token": "note",
    "pad_token": "note",
}


def compare(base: Checkpoint, experts: Sequence[Checkpoint], giver: Checkpoint) -> list[Problem]:
    """What the models' tokenizers disagree in.

    Args:
        giver: the model whose tokenizer the result gets.
    """
    own = vocabulary.read(giver.folder)
    others = [
        expert
        for expert in experts
        if expert is not giver and not vocabulary.same_files(giver.folder, expert.folder)
    ]
    problems = []
    if own.problem and others:
        problems.append(Problem("warning", giver.name, f"not compared: {own.problem}", "tokenizer"))
    for expert in others:
        problems += _against(giver, own, expert, is_base=giver is base)
    problems += _absent(own, others) if giver is base else []
    if giver is not base:
        problems += _taken(base, giver, own)
    specials = {m.name: vocabulary.settings(m.folder).specials for m in (giver, *experts)}
    problems += _specials(giver, specials, base)
    return [*problems, *_beyond(base, giver, own)]


def _against(
    giver: Checkpoint, own: Vocabulary, expert: Checkpoint, is_base: bool
) -> list[Problem]:
    other = vocabulary.read(expert.folder)
    if other.problem:
        return [Problem("warning", expert.name, f"not compared: {other.problem}", "tokenizer")]
    if not own.tokens or not other.tokens:
        return []
    common = [index for index in other.tokens if index in own.tokens]
    moved = [index for index in common if other.tokens[index] != own.tokens[index]]
    meant = [index for index in moved if not _SPARE.search(own.tokens[index])]
    unknown = [index for index, token in other.tokens.items() if token not in own.ids]
    root = f"in {called(giver.name)}" if is_base else f"in {giver.name}"
    problems = []
    if meant:
        at = min(meant)
        problems.append(
            Problem(
                "warning",
                expert.name,
                f"{len(moved)} of {len(common)} token ids mean another token than {root} "
                f"(id {at} is {_quoted(other.tokens[at])}, there {_quoted(own.tokens[at])}); "
                "the embeddings' rows do not belong together; choose experts with the base's "
                "tokenizer",
                "tokenizer",
            )
        )
    if unknown:
        shown = listed((f"{_quoted(other.tokens[i])} ({i})" for i in sorted(unknown)), 3)
        tokens = "token" if len(unknown) == 1 else "tokens"
        problems.append(
            Problem(
                "warning",
                expert.name,
                f"{len(unknown)} {tokens} of its tokenizer will be unknown to the result: {shown}; "
                "a prompt that holds them is read in pieces",
                "tokenizer",
            )
        )
    return problems


def _absent(own: Vocabulary, experts: Sequence[Checkpoint]) -> list[Problem]:
    """Where the base has no tokenizer: the result would have none either."""
    if own.tokens or own.problem:
        return []
    having = [expert.name for expert in experts if vocabulary.has_tokens(expert.folder)]
    if not having:
        return []
    return [
        Problem(
            "warning",
            listed(having),
            f"the base has no tokenizer that can be read, {listed(having)} {have(having)} one; "
            f"tokenizer_source: {having[0]} gives it to the result",
            "tokenizer",
        )
    ]


def _taken(base: Checkpoint, giver: Checkpoint, own: Vocabulary) -> list[Problem]:
    """Why a tokenizer cannot be taken from an expert: its ids are not the base's."""
    first = vocabulary.read(base.folder)
    moved = [
        index
        for index, token in own.tokens.items()
        if first.tokens.get(index, token) != token and not _SPARE.search(first.tokens[index])
    ]
    rows = _rows(base)
    beyond = [] if rows is None else [index for index in own.tokens if index >= rows]
    if not own.tokens:
        reason = f"{giver.name} has no tokenizer that can be read"
    elif moved:
        reason = f"{len(moved)} of its token ids mean another token in the base"
    elif beyond:
        reason = f"it has ids up to {max(beyond)}, the base's embedding {rows} rows"
    else:
        return []
    return [
        Problem(
            "error",
            "tokenizer_source",
            f"{giver.name}: {reason}; vocabularies are not merged: leave tokenizer_source out for "
            "the base's tokenizer, or choose an expert whose ids agree",
            "tokenizer",
        )
    ]


def _beyond(base: Checkpoint, giver: Checkpoint, own: Vocabulary) -> list[Problem]:
    """Tokens of the result that its embedding has no rows for."""
    rows = _rows(base)
    beyond = sorted(index for index in own.tokens if rows is not None and index >= rows)
    if not beyond or giver is not base:
        return []
    shown = listed((own.tokens[index] for index in beyond), 2).replace(" and ", " or ")
    return [
        Problem(
            "warning",
            giver.name,
            f"the tokenizer has ids up to {beyond[-1]}, the embedding {rows} rows: a prompt with "
            f"{shown} cannot be read",
            "tokenizer",
        )
    ]


def _rows(base: Checkpoint) -> int | None:
    """Rows of the token embedding; None where none is known by its name."""
    name = input_embedding(base)
    return base.tensors[name].shape[0] if name and base.tensors[name].shape else None


def _specials(
    giver: Checkpoint, specials: Mapping[str, Mapping[str, str]], base: Checkpoint
) -> list[Problem]:
    problems = []
    root = called(base.name) if giver is base else giver.name
    for key, severity in _SPECIAL.items():
        mine = specials[giver.name].get(key)
        others = {
            name: own.get(key)
            for name, own in specials.items()
            if name != giver.name and own and own.get(key) != mine and (own.get(key) or mine)
        }
        if not specials[giver.name] or not others:
            continue
        parts = [f"{_quoted(value)} in {listed(names)}" for names, value in grouped(others)]
        problems.append(
            Problem(
                severity,
                listed(others),
                f"tokenizer_config.json: {key} is {_quoted(mine)} in {root}, {', '.join(parts)}; "
                f"the result keeps {_quoted(mine)}",
                "tokenizer",
            )
        )
    return problems


def _quoted(token: str | None) -> str:
    if token is None:
        return "none"
    return repr(token if len(token) <= 40 else token[:39] + "…")
