"""Chat templates and generation settings: what a model was tuned to answer to, and ends with.

The result gets them with its tokenizer, from the base unless the recipe says otherwise. A template
may come from the recipe: auto takes the one that most of the models have, as mergekit does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.checkpoints import Checkpoint
from merging.checkpoints.folders import MORE_TEMPLATES
from merging.errors import BadFile
from merging.kinship import vocabulary
from merging.kinship.problem import Problem, called, grouped, have, listed, value_text
from merging.recipe import chat_templates
from merging.system.documents import read_json, read_text

_CONTROL = re.compile(r"<\|[^|<>{}\s]{1,40}\|>")  # tokens as <|im_end|> in a template's text
IDS = ("eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id")
"""Settings that a model writes with and that name tokens."""
_DEFAULT = "default"


@dataclass(frozen=True)
class _Tuned:
    """A model as it was tuned to answer: its templates and settings, read once."""

    model: Checkpoint
    templates: dict[str, str] = field(repr=False)
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def template(self) -> str:
        """The one that is used unasked; "" where there is none."""
        return self.templates.get(_DEFAULT, "").strip()


def _tuned(model: Checkpoint) -> _Tuned:
    return _Tuned(model, templates(model.folder), settings(model))


def templates(folder: Path) -> dict[str, str]:
    """The chat templates of a model by name, "default" for the one that is used unasked. What
    cannot be read is left out."""
    texts: dict[str, str] = {}
    setting: Any = vocabulary.settings(folder).chat_template
    for name in ("chat_template.json", "processor_config.json"):
        setting = setting or _json(folder / name).get("chat_template")
    if isinstance(setting, str):
        texts[_DEFAULT] = setting
    elif isinstance(setting, list):
        pairs = [
            (item.get("name"), item.get("template")) for item in setting if isinstance(item, dict)
        ]
        texts |= {str(name): text for name, text in pairs if isinstance(text, str)}
    elif isinstance(setting, dict):
        texts |= {name: text for name, text in setting.items() if isinstance(text, str)}
    for file in [
        folder / "chat_template.jinja",
        *sorted((folder / MORE_TEMPLATES).glob("*.jinja")),
    ]:
        name = file.stem if file.parent != folder else _DEFAULT
        try:
            texts[name] = read_text(file) if file.is_file() else texts[name]
        except (BadFile, KeyError):
            continue
    return texts


def chosen(choice: str | None, models: Sequence[Checkpoint]) -> str | None:
    """The text that a recipe's chat_template asks for; None where the tokenizer's own stays.

    Args:
        models: base first; of templates that as many models have, the first model's is taken.
    """
    if choice != chat_templates.AUTO:
        return chat_templates.NAMED.get(choice or "", choice)
    counts: Counter[str] = Counter()
    for model in models:
        if text := templates(model.folder).get(_DEFAULT, "").strip():
            counts[text] += 1
    return counts.most_common(1)[0][0] if counts else None


def compare(
    base: Checkpoint, experts: Sequence[Checkpoint], giver: Checkpoint, choice: str | None
) -> list[Problem]:
    """What the models' templates and generation settings disagree in.

    Args:
        giver: the model whose tokenizer the result gets.
        choice: the recipe's chat_template.
    """
    own = _tuned(giver)  # a base that does not give is not asked for what it would give
    others = [_tuned(model) for model in experts if model is not giver]
    root = called(giver.name) if giver is base else giver.name
    result = chosen(choice, (base, *experts))
    return [
        *_templates(own, others, root, choice, result),
        *_named(own, others, root),
        *_unknown(own, others, result),
        *_endings(own, others, root, is_base=giver is base),
    ]


def _templates(
    giver: _Tuned, others: Sequence[_Tuned], root: str, choice: str | None, result: str | None
) -> list[Problem]:
    mine = giver.template
    differing = {other.name: other.template for other in others if other.template not in ("", mine)}
    if not differing:
        return []
    who = listed(differing)
    several = len(set(differing.values())) > 1
    that = f"{who} {have(list(differing))} {'different ones' if several else 'one'}"
    text = f"{root} has no chat template, {that}"
    if mine:
        text = f"{who} {have(list(differing))} another chat template than {root}"
    if result is None:
        ask = "the result has none" if not mine else "the result keeps that of " + root
        return [
            Problem(
                "warning",
                who,
                f"{text}; {ask}; chat_template: auto takes what most have",
                "template",
            )
        ]
    taken = [name for name, other in differing.items() if other == result.strip()]
    whose = f"that of {listed(taken)}" if taken else "the recipe's"
    whose = f"that of {root}" if result.strip() == mine else whose
    unsure = choice == chat_templates.AUTO and (several or bool(mine))
    return [
        Problem(
            "warning" if unsure else "note",
            who,
            f"{text}; the result gets {whose}, as chat_template asks",
            "template",
        )
    ]


def _named(giver: _Tuned, others: Sequence[_Tuned], root: str) -> list[Problem]:
    """Templates for some purpose that only experts have."""
    problems = []
    for other in others:
        more = [name for name in other.templates if name not in (_DEFAULT, *giver.templates)]
        if more:
            problems.append(
                Problem(
                    "note",
                    other.name,
                    f"{root} has no chat template called {listed(more)}, {other.name} has; the "
                    "result has none",
                    "template",
                )
            )
    return problems


def _unknown(giver: _Tuned, others: Sequence[_Tuned], template: str | None) -> list[Problem]:
    """Tokens of a template that the recipe chose and that the result's tokenizer reads as several:
    of a model's own those which that model knows as one."""
    vocab = vocabulary.read(giver.model.folder)
    if template is None or template.strip() == giver.template or not vocab.tokens:
        return []
    unknown = [t for t in dict.fromkeys(_CONTROL.findall(template)) if t not in vocab.ids]
    owner = next((other for other in others if other.template == template.strip()), None)
    if owner and unknown:
        theirs = vocabulary.read(owner.model.folder).ids
        unknown = [token for token in unknown if token in theirs]
    if not unknown:
        return []
    return [
        Problem(
            "warning",
            giver.name,
            f"the result's chat template writes {listed(unknown)}, which its tokenizer does not "
            "know; take another template, or tokenizer_source: an expert that knows it",
            "template",
        )
    ]


def settings(model: Checkpoint) -> dict[str, Any]:
    """The ids that end, begin and fill a text when a model writes; where generation_config.json
    is silent, config.json's."""
    generation = _json(model.folder / "generation_config.json")
    text = model.config.get("text_config")
    levels = [generation, model.config, text if isinstance(text, dict) else {}]
    values = {}
    for key in IDS:
        value = next((level[key] for level in levels if level.get(key) is not None), None)
        if value is not None:
            values[key] = value
    return values


def _endings(giver: _Tuned, others: Sequence[_Tuned], root: str, *, is_base: bool) -> list[Problem]:
    own = giver.settings
    problems = []
    for key in IDS:
        theirs: Mapping[str, Any] = {other.name: other.settings.get(key) for other in others}
        differing = {
            name: value
            for name, value in theirs.items()
            if value is not None and _ids(value) != _ids(own.get(key))
        }
        if not differing:
            continue
        parts = [f"{value_text(value)} in {listed(names)}" for names, value in grouped(differing)]
        mine = "none" if own.get(key) is None else value_text(own[key])
        ends = key == "eos_token_id"
        why = ": it may not stop where they do"
        why += "; tokenizer_source: an expert takes its settings" if is_base else ""
        problems.append(
            Problem(
                "warning" if ends else "note",
                listed(differing),
                f"generation settings: {key} is {mine} in {root}, {', '.join(parts)}; the result "
                f"keeps {mine}{why if ends else ''}",
                "generation",
            )
        )
    return [*problems, *_own_ending(giver.model, own.get("eos_token_id"))]


def _own_ending(giver: Checkpoint, ends: Any) -> list[Problem]:
    """Where the result's tokenizer ends a text with another token than its settings stop at."""
    vocab = vocabulary.read(giver.folder)
    token = vocabulary.settings(giver.folder).specials.get("eos_token")
    index = vocab.ids.get(token) if token is not None else None
    if index is None or ends is None or str(index) in _ids(ends):
        return []
    return [
        Problem(
            "warning",
            giver.name,
            f"its tokenizer ends a text with {token!r} ({index}), its generation settings stop at "
            f"{value_text(ends)}: answers may not stop",
            "generation",
        )
    ]


def _ids(value: Any) -> set[str]:
    return {str(item) for item in (value if isinstance(value, list) else [value])}


def _json(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path) if path.exists() else {}
    except BadFile:
        return {}
    return value if isinstance(value, dict) else {}
