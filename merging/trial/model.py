"""A loaded model with what reads prompts for it, and what it can be asked at all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from merging.trial.confined import ConfinedTokenizer
from merging.trial.description import is_number
from merging.trial.placement import Placement
from merging.trial.tokenizer import Ids, Language
from merging.trial.turns import Message, PromptError

_UNBOUNDED = 2**20  # tokens, where a config names no length


@dataclass(frozen=True)
class Model:
    """One model, ready to answer.

    Attributes:
        name: what messages call it.
        placement: where its weights lie; None for a network made in memory.
    """

    network: PreTrainedModel = field(repr=False)
    language: Language = field(repr=False)
    name: str
    placement: Placement | None = None

    @property
    def device(self) -> torch.device:
        """The device that tokens are given to."""
        return self.placement.main if self.placement is not None else self.network.device

    @cached_property
    def rows(self) -> int:
        """Rows of the token embedding: ids from 0 to `rows - 1` can be read."""
        embedding: Any = self.network.get_input_embeddings()
        return int(embedding.weight.shape[0])

    @cached_property
    def context(self) -> int:
        """Tokens that the model can read and write together."""
        config = self.network.config.get_text_config()
        length: Any = getattr(config, "max_position_embeddings", None)
        return int(length) if is_number(length) and length > 0 else _UNBOUNDED

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer: those of the checkpoint that the model can write."""
        generation = self.network.generation_config
        for named in (
            getattr(generation, "eos_token_id", None),
            getattr(self.network.config, "eos_token_id", None),
            self.language.end,
        ):
            ids = named if isinstance(named, list | tuple) else [named]
            ends = frozenset(
                token for token in ids if isinstance(token, int) and 0 <= token < self.rows
            )
            if ends:
                return ends
        return frozenset()

    @property
    def padding(self) -> int:
        """A token that fills up rows; what it means is masked."""
        token = self.language.padding
        return token if token is not None and 0 <= token < self.rows else 0

    @cached_property
    def repetition_penalty(self) -> float:
        """What the checkpoint asks for; 1 for none, or where it is not a number above 0."""
        penalty: Any = getattr(self.network.generation_config, "repetition_penalty", None)
        return float(penalty) if is_number(penalty) and penalty > 0 else 1.0

    def read(
        self, chats: Sequence[Sequence[Message]], stop: threading.Event | None = None
    ) -> list[Ids]:
        """The tokens of conversations, each of which the model can read and answer.

        Raises:
            PromptError: the template refuses one, nothing is left of it, it has a token without a
                row in the embedding, or there is no room for an answer.
            Cancelled: `stop` was set.
        """
        if isinstance(self.language, ConfinedTokenizer):
            rows = self.language.prompts(chats, stop)
        else:
            rows = self.language.prompts(chats)
        for ids, chat in zip(rows, chats, strict=True):
            self._check(ids, chat)
        return rows

    def answers(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of texts that the model may be asked to write.

        Raises:
            PromptError: one has a token without a row in the embedding.
        """
        rows = self.language.ids(texts)
        for ids, text in zip(rows, texts, strict=True):
            self._check_rows(ids, text)
        return rows

    def _check(self, ids: Ids, chat: Sequence[Message]) -> None:
        text = chat[-1]["content"]
        if not ids:
            raise PromptError(
                f"{self.name}: its tokenizer and chat template leave nothing of {_quoted(text)}; "
                "ask something else, or correct chat_template.jinja"
            )
        self._check_rows(ids, text)
        if len(ids) >= self.context:
            mend = "shorten it" if len(chat) == 1 else "shorten it or clear the conversation"
            raise PromptError(
                f"{self.name}: the prompt {_quoted(text)} has {len(ids)} tokens, this model reads "
                f"at most {self.context - 1}; {mend}"
            )

    def _check_rows(self, ids: Ids, text: str) -> None:
        beyond = next((token for token in ids if token >= self.rows), None)
        if beyond is not None:
            raise PromptError(
                f"{self.name}: {_quoted(text)} has the token {self.language.token(beyond)!r} of id "
                f"{beyond}, the embedding has {self.rows} rows (0 to {self.rows - 1}); use the "
                "tokenizer that belongs to these tensors"
            )


def plain_generation(model: Model) -> GenerationConfig:
    """How a model answers: what a checkpoint says beyond that is for programs that sample."""
    return GenerationConfig(
        eos_token_id=sorted(model.ends) or None,
        pad_token_id=model.padding,
        repetition_penalty=model.repetition_penalty,
    )


def _quoted(text: str) -> str:
    """The beginning of a prompt, on one line."""
    text = " ".join(text.split())
    return f"'{text if len(text) <= 40 else text[:39] + '…'}'"
