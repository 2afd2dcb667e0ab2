"""Talk to one model: its own chat template, and an answer that streams token by token.

The loop is our own, because `generate` spends more time around a small model than inside it. With
temperature 0 it takes the most likely token, and gives the tokens that `generate` gives; of what a
checkpoint's generation config may ask for, a repetition penalty is heeded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from transformers import DynamicCache
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from merging.checkpoints import open_checkpoint
from merging.errors import DeviceUnavailable, NonFinite, NotEnoughSpace
from merging.sources import release
from merging.trial.loading import load
from merging.trial.turns import Chunk, Message, PromptError, Sampling


@dataclass(frozen=True)
class ChatModel:
    """One loaded model with its tokenizer.

    Attributes:
        size_bytes: memory of its parameters and buffers.
        has_template: False where prompts are completed as plain text.
    """

    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    size_bytes: int

    @classmethod
    def load(cls, folder: Path, device: str = "auto") -> ChatModel:
        """Loads a model folder in its stored type; nothing is downloaded or executed from it.

        Args:
            device: "auto" (CUDA where present), "cpu", "cuda" or "mps".

        Raises:
            BadCheckpoint, UnsafeFile, ModelNotFound: as `open_checkpoint`, or no tokenizer.
            DeviceUnavailable: CUDA was asked for and is not there.
        """
        open_checkpoint(folder)
        target = _device(device)
        model, tokenizer = load(folder)
        model = _moved(model, target, Path(folder).name)
        tensors = [*model.parameters(), *model.buffers()]
        return cls(model, tokenizer, sum(t.numel() * t.element_size() for t in tensors))

    @property
    def has_template(self) -> bool:
        """True where the tokenizer brings a chat template."""
        return bool(self.tokenizer.chat_template)

    @property
    def context(self) -> int:
        """Tokens that the model can read and write together."""
        text_config = self.model.config.get_text_config()
        return int(getattr(text_config, "max_position_embeddings", None) or 2**20)

    def encode(self, messages: Sequence[Message]) -> torch.Tensor:
        """The tokens the model reads for a conversation, (1, n) int64.

        Raises:
            PromptError: the last message is empty, the template refuses the conversation, or no
                room is left for an answer.
        """
        if not messages or not messages[-1]["content"].strip():
            raise PromptError("the prompt is empty; write a question")
        text = messages[-1]["content"]
        if self.has_template:
            try:
                text = self.tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=True
                )
            except Exception as error:  # templates raise whatever they like
                reason = str(error).partition("\n")[0]
                raise PromptError(f"the model's chat template refuses: {reason}") from None
        ids = self.tokenizer(text, add_special_tokens=not self.has_template)["input_ids"]
        if len(ids) >= self.context:
            raise PromptError(
                f"the prompt has {len(ids)} tokens, this model reads at most {self.context - 1}; "
                "shorten it or clear the conversation"
            )
        if not ids:
            raise PromptError("the tokenizer reads nothing in this prompt; write a question")
        return torch.tensor([ids], device=self.model.device)

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling | None = None,
        *,
        stop: threading.Event | None = None,
        every_s: float = 0.1,
    ) -> Iterator[Chunk]:
        """Yields the answer as it grows, at most once per `every_s`; the last chunk has `finish`.

        Args:
            messages: the conversation, the question last.
            sampling: greedy by default.
            stop: ends the answer before the next token.

        Raises:
            PromptError: see `encode`.
            NonFinite: the model's scores are NaN.
        """
        sampling = sampling or Sampling()
        tokens = self.encode(messages)
        limit = min(sampling.max_new_tokens, self.context - tokens.shape[1])
        ends = self._end_tokens()
        started = shown = time.perf_counter()
        answer: list[int] = []
        finish = "length"
        for token in self._decode(tokens, limit, sampling):
            if token in ends:
                finish = "end"
                break
            answer.append(token)
            if stop is not None and stop.is_set():
                finish = "stopped"
                break
            now = time.perf_counter()
            if now - shown >= every_s:
                yield Chunk(self._text(answer, whole=False), len(answer), now - started)
                shown = time.perf_counter()
        seconds = time.perf_counter() - started
        yield Chunk(self._text(answer, whole=True), len(answer), seconds, finish)

    def _decode(self, tokens: torch.Tensor, limit: int, sampling: Sampling) -> Iterator[int]:
        """Yields up to `limit` token ids. tokens: (1, n) int64."""
        cache = DynamicCache(config=self.model.config)
        process = self._processors(sampling)
        generator = torch.Generator(self.model.device).manual_seed(sampling.seed)
        seen = step = tokens
        for _ in range(limit):
            with torch.inference_mode():
                output = self.model(step, past_key_values=cache, use_cache=True, logits_to_keep=1)
                scores = output.logits[:, -1].float()  # (1, vocabulary)
                if scores.isnan().any():
                    raise NonFinite(
                        "its scores are NaN: the model holds values that are not finite, or "
                        "overflows; Explore and a merge name the tensor"
                    )
                if process:
                    scores = process(cast(torch.LongTensor, seen), scores)
                if sampling.temperature > 0:
                    step = torch.multinomial(scores.softmax(-1), 1, generator=generator)
                else:
                    step = scores.argmax(-1, keepdim=True)
                if process:
                    seen = torch.cat([seen, step], dim=1)
            yield int(step)

    def _processors(self, sampling: Sampling) -> LogitsProcessorList:
        """What `generate` would do to the scores, as far as a checkpoint may ask for it."""
        process = LogitsProcessorList()
        penalty = getattr(self.model.generation_config, "repetition_penalty", None)
        if penalty and penalty != 1.0:
            process.append(RepetitionPenaltyLogitsProcessor(penalty))
        if sampling.temperature > 0:
            if sampling.temperature != 1.0:
                process.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_p < 1.0:
                process.append(TopPLogitsWarper(sampling.top_p))
        return process

    def _end_tokens(self) -> frozenset[int]:
        ends = self.model.generation_config.eos_token_id
        ends = self.model.config.eos_token_id if ends is None else ends
        ends = self.tokenizer.eos_token_id if ends is None else ends
        if ends is None:
            return frozenset()
        return frozenset(ends if isinstance(ends, list | tuple) else [ends])

    def _text(self, answer: Sequence[int], *, whole: bool) -> str:
        text = self.tokenizer.decode(answer, skip_special_tokens=True)
        # a character whose last bytes are still to come decodes to U+FFFD
        return text if whole else text.rstrip("\N{REPLACEMENT CHARACTER}")


def _moved(model: Any, target: torch.device, name: str) -> Any:
    """The model on its device; a family kept there for merging makes room for it.

    Raises:
        NotEnoughSpace: the device's memory is too small.
    """
    try:
        return model.to(target)
    except torch.OutOfMemoryError:
        pass
    release(str(target))  # outside the handler: the error held what was already moved
    try:
        return model.to(target)
    except torch.OutOfMemoryError:
        raise NotEnoughSpace(
            f"{name} does not fit the memory of {target}; start with --device cpu"
        ) from None


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceUnavailable("there is no CUDA device here; choose cpu or auto")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("there is no Apple GPU here; choose cpu or auto")
    return torch.device(wanted)
