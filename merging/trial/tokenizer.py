"""A model's tokenizer with its chat template: conversations to token ids, and back to text.

Imports transformers only where a tokenizer is opened, and never torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from merging.errors import BadCheckpoint
from merging.trial.reason import reason
from merging.trial.turns import Message, PromptError

Ids = list[int]

MOST_CHARACTERS = 4_000_000  # of the text that a template makes of a conversation


class Language(Protocol):
    """What reads prompts and writes answers, in this process or in one of its own.

    Attributes:
        has_template: False where prompts are completed as plain text.
        end: the token that ends an answer, None where the tokenizer names none.
        padding: the token that fills up rows, None where the tokenizer names none.
    """

    has_template: bool
    end: int | None
    padding: int | None

    def prompts(self, chats: Sequence[Sequence[Message]]) -> list[Ids]:
        """The tokens that a model reads for each conversation.

        Raises:
            PromptError: the chat template refuses one of them.
        """
        ...

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """The tokens of texts, without special ones around them."""
        ...

    def texts(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """The texts of rows of tokens, special ones left out."""
        ...

    def token(self, token_id: int) -> str:
        """What one token is called."""
        ...


class Tokenizer:
    """A `Language` over a tokenizer of transformers, in this process."""

    def __init__(self, inner: Any, name: str = "") -> None:
        self._inner = inner
        self._name = name or Path(str(inner.name_or_path)).name
        self.has_template = bool(inner.chat_template)
        self.end: int | None = inner.eos_token_id
        self.padding: int | None = inner.pad_token_id

    @classmethod
    def open(cls, folder: Path, name: str = "") -> Tokenizer:
        """Opens a folder's tokenizer; nothing is downloaded, and no code of the folder is run.

        Raises:
            BadCheckpoint: transformers does not read it, or not the config beside it.
        """
        from transformers import AutoConfig, AutoTokenizer

        name = name or folder.name
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            AutoConfig.from_pretrained(folder, **options)  # which the tokenizer may read, too
        except MemoryError:
            raise
        except Exception as error:  # what transformers raises for a config has no common base
            raise BadCheckpoint(
                f"{name}: config.json cannot be read ({reason(error)}); copy it again from the "
                "model it was made from"
            ) from None
        try:
            inner = AutoTokenizer.from_pretrained(folder, **options)
        except MemoryError:
            raise
        except Exception as error:  # whatever the many tokenizers raise
            raise BadCheckpoint(
                f"{name}: its tokenizer cannot be read ({reason(error)}); copy tokenizer.json and "
                "tokenizer_config.json again from the model it was made from"
            ) from None
        return cls(inner, name)

    def prompts(self, chats: Sequence[Sequence[Message]]) -> list[Ids]:
        """As `Language.prompts`."""
        texts = [self._rendered(chat) for chat in chats]
        return self._encoded(texts, special=not self.has_template)

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """As `Language.ids`."""
        return self._encoded(texts, special=False)

    def texts(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """As `Language.texts`."""
        return list(self._inner.batch_decode([list(row) for row in rows], skip_special_tokens=True))

    def token(self, token_id: int) -> str:
        """As `Language.token`."""
        return str(self._inner.convert_ids_to_tokens(token_id))

    def _rendered(self, chat: Sequence[Message]) -> str:
        if not self.has_template:
            return chat[-1]["content"]
        try:
            text = self._inner.apply_chat_template(
                list(chat), tokenize=False, add_generation_prompt=True
            )
        except MemoryError:
            raise
        except Exception as error:  # templates raise whatever they like
            raise PromptError(
                f"{self._name}: its chat template refuses this prompt ({reason(error)}); correct "
                "chat_template in its tokenizer_config.json or chat_template.jinja"
            ) from None
        if len(text) > MOST_CHARACTERS:
            raise PromptError(
                f"{self._name}: its chat template makes {len(text):,} characters of "
                f"{sum(len(message['content']) for message in chat):,}, more than "
                f"{MOST_CHARACTERS:,}; correct chat_template.jinja"
            )
        return str(text)

    def _encoded(self, texts: Sequence[str], *, special: bool) -> list[Ids]:
        if not texts:
            return []
        return list(self._inner(list(texts), add_special_tokens=special)["input_ids"])
