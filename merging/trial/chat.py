"""Talk to one model: its own chat template, and an answer that streams token by token.

The loop is our own, because `generate` spends more time around a small model than inside it. With
temperature 0 it takes the most likely token, and gives the tokens that `generate` gives; of what a
checkpoint's generation config may ask for, a repetition penalty is heeded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from transformers import DynamicCache
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from merging.errors import (
    BadCheckpoint,
    Cancelled,
    NonFinite,
    NotEnoughSpace,
)
from merging.trial.chances import Chance, chance, written
from merging.trial.loading import Prepared, prepare
from merging.trial.model import Model
from merging.trial.placement import main_device
from merging.trial.reason import reason
from merging.trial.turns import Chunk, Message, PromptError, Sampling


@dataclass(frozen=True)
class ChatModel:
    """One loaded model to talk to.

    Attributes:
        size_bytes: memory that its parameters and buffers take.
    """

    model: Model
    size_bytes: int

    @classmethod
    def load(cls, folder: Path, device: str = "auto", name: str | None = None) -> ChatModel:
        """Loads a model folder in its stored type; nothing is downloaded or executed from it.

        Args:
            device: "auto" (CUDA where present), "cpu", "cuda" or "mps".
            name: what messages call it; the folder's own name if None.

        Raises:
            BadCheckpoint, UnsafeFile, ModelNotFound: as `loading.load`.
            DeviceUnavailable: CUDA was asked for and is not there.
        """
        return cls.prepare(folder, device, name).load()

    @classmethod
    def prepare(cls, folder: Path, device: str = "auto", name: str | None = None) -> PreparedChat:
        """The first half of `load`, which reads no tensors."""
        main_device(device)
        return PreparedChat(prepare(folder, name=name), device)

    @property
    def has_template(self) -> bool:
        """False where prompts are completed as plain text."""
        return self.model.language.has_template

    @property
    def parts(self) -> str:
        """Where the weights lie, and what that costs; "" where they lie on one device."""
        place = self.model.placement
        return "" if place is None or place.is_whole else str(place)

    @property
    def context(self) -> int:
        """Tokens that the model can read and write together."""
        return self.model.context

    def encode(
        self, messages: Sequence[Message], stop: threading.Event | None = None
    ) -> torch.Tensor:
        """The tokens the model reads for a conversation, (1, n) int64.

        Raises:
            PromptError: the last message is empty, the template refuses the conversation, a token
                has no row in the embedding, or no room is left for an answer.
            Cancelled: `stop` was set.
        """
        if not messages or not messages[-1]["content"].strip():
            raise PromptError("the prompt is empty; write a question")
        ids = self.model.read([messages], stop)
        return torch.tensor(ids, device=self.model.device)

    def stream(
        self,
        messages: Sequence[Message],
        sampling: Sampling | None = None,
        *,
        stop: threading.Event | None = None,
        every_s: float = 0.1,
        alternatives: int = 0,
    ) -> Iterator[Chunk]:
        """Yields the answer as it grows, at most once per `every_s`; the last chunk has `finish`.

        Args:
            messages: the conversation, the question last.
            sampling: greedy by default.
            stop: ends the answer before the next token.
            alternatives: how many of the likeliest tokens at each place the last chunk tells, with
                the probabilities; 0 tells none and costs nothing.

        Raises:
            PromptError: see `encode`.
            NonFinite: the model's scores are NaN.
            BadCheckpoint: the model cannot be run.
            NotEnoughSpace: memory ends.
        """
        sampling = sampling or Sampling()
        started = shown = time.perf_counter()
        try:
            tokens = self.encode(messages, stop)
        except Cancelled:
            yield Chunk("", 0, time.perf_counter() - started, "stopped")
            return
        limit = min(sampling.max_new_tokens, self.context - tokens.shape[1])
        ends = self.model.ends
        answer: list[int] = []
        chances: list[Chance] = []
        finish = "length"
        for token, scores in self._decode(tokens, limit, sampling):
            if alternatives:
                chances.append(chance(scores, token, alternatives))
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
        text = self._text(answer, whole=True)
        likely = written(chances, self.model.language, ends) if chances else ()
        yield Chunk(text, len(answer), seconds, finish, likely)

    def _decode(
        self, tokens: torch.Tensor, limit: int, sampling: Sampling
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields up to `limit` token ids, each with the scores it was chosen by, (1, vocabulary)
        float32, as the model gave them. tokens: (1, n) int64."""
        network = self.model.network
        cache = DynamicCache(config=network.config)
        process = self._processors(sampling)
        generator = torch.Generator(self.model.device).manual_seed(sampling.seed)
        history = step = tokens
        for _ in range(limit):
            with torch.inference_mode():
                own = scores = self._scores(step, cache).to(self.model.device)
                if scores.isnan().any():
                    raise NonFinite(
                        "its scores are NaN: the model holds values that are not finite, or "
                        "overflows; Explore and a merge name the tensor"
                    )
                if process:
                    scores = process(cast(torch.LongTensor, history), scores)
                if sampling.temperature > 0:
                    step = torch.multinomial(scores.softmax(-1), 1, generator=generator)
                else:
                    step = scores.argmax(-1, keepdim=True)
                if process:
                    history = torch.cat([history, step], dim=1)
            yield int(step), own

    def _scores(self, step: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Logits of the next token, (1, vocabulary) float32. step: (1, n) int64."""
        try:
            output = self.model.network(
                step, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
        except (torch.OutOfMemoryError, MemoryError):
            raise NotEnoughSpace(
                f"{self.model.name}: memory ends while it answers; shorten the conversation"
            ) from None
        except Exception as error:  # a config may describe what cannot be computed
            raise BadCheckpoint(
                f"{self.model.name}: cannot be run: {reason(error)}; see that its config.json "
                "belongs to its tensors"
            ) from error
        return output.logits[:, -1].float()

    def _processors(self, sampling: Sampling) -> LogitsProcessorList:
        """What `generate` would do to the scores, as far as a checkpoint may ask for it."""
        process = LogitsProcessorList()
        if self.model.repetition_penalty != 1.0:
            process.append(RepetitionPenaltyLogitsProcessor(self.model.repetition_penalty))
        if sampling.temperature > 0:
            if sampling.temperature != 1.0:
                process.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_p < 1.0:
                process.append(TopPLogitsWarper(sampling.top_p))
        return process

    def _text(self, answer: Sequence[int], *, whole: bool) -> str:
        (text,) = self.model.language.texts([answer])
        # a character whose last bytes are still to come decodes to U+FFFD
        return text if whole else text.rstrip("\N{REPLACEMENT CHARACTER}")


@dataclass(frozen=True)
class PreparedChat:
    """A model that was looked at, and the device it is meant for."""

    prepared: Prepared
    device: str

    def load(
        self,
        most_bytes: int | None = None,
        make_room: Callable[[str], object] | None = None,
    ) -> ChatModel:
        """Reads the tensors. Raises as `ChatModel.load`.

        Args:
            most_bytes: of memory that the model may take, all devices together: what does not fit
                stays on disk. Most of what is free if None.
            make_room: lets go of what else lies in a device's memory, where that is short.
        """
        model = self.prepared.load("auto", self.device, most_bytes=most_bytes, make_room=make_room)
        assert model.placement is not None
        return ChatModel(model, model.placement.memory_bytes)
