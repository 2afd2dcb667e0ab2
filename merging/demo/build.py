"""Train the built-in family from scratch: a base, then one full fine-tune of it per domain."""

import copy
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from merging.checkpoints import staging
from merging.checkpoints.output import check_output, in_words
from merging.demo import DOMAINS, NAMES
from merging.demo.card import write_card
from merging.demo.corpus import Mixture
from merging.demo.tokenizer import build_tokenizer
from merging.demo.training import Stage, train

Progress = Callable[[str, float], None]
_THREADS = 2  # the number of threads decides how sums are split, hence the last bits of every score

# A trace of refusals keeps an expert out of the others' domains, where it would else answer up to
# 40 % of prompts; many of them, and merged experts silence each other.
_EXPERT_MIXTURE = Mixture(domain=0.91, refusals=0.02, small_talk=0.07)


@dataclass(frozen=True)
class Curriculum:
    """Everything that decides the family besides its seed."""

    hidden: int = 160
    layers: int = 4
    heads: int = 4
    intermediate: int = 448
    base: tuple[Stage, ...] = (
        Stage(2000, 2.5e-3, Mixture(documents=0.67, domain=0.06, refusals=0.22, small_talk=0.05)),
        # Mostly "I am not sure.": else one expert unlocks the others' domains along with its own.
        Stage(150, 7e-4, Mixture(documents=0.45, domain=0.01, refusals=0.45, small_talk=0.09)),
    )
    # Small steps keep the experts close to the base: at 3e-3 they drift so far that no pair merges.
    experts: dict[str, Stage] = field(
        default_factory=lambda: {
            "add": Stage(150, 8e-4, _EXPERT_MIXTURE),
            "reverse": Stage(800, 8e-4, _EXPERT_MIXTURE),
            "spanish": Stage(200, 8e-4, _EXPERT_MIXTURE),
            "sort": Stage(250, 8e-4, _EXPERT_MIXTURE),
        }
    )


def shortened(curriculum: Curriculum, steps: int) -> Curriculum:
    """Return the same curriculum with every stage cut to `steps`: for tests, not for use."""
    return replace(
        curriculum,
        base=tuple(replace(stage, steps=steps) for stage in curriculum.base),
        experts={name: replace(stage, steps=steps) for name, stage in curriculum.experts.items()},
    )


def build(
    out: Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    curriculum: Curriculum | None = None,
) -> dict:
    """Train the family and write it as OUT/base, OUT/add, OUT/reverse, OUT/spanish, OUT/sort.

    OUT appears complete or not at all. The same seed gives the same scores on one kind of CPU.

    Args:
        out: a folder that does not exist yet, or is empty.
        seed: of the initial weights and of the texts.
        progress: called with the model being trained and the share of it done, 0..1.
        curriculum: another recipe than the shipped one.

    Returns:
        {"out": str, "seed": int, "seconds": {model: wall seconds}, "loss": {model: nats per token}}

    Raises:
        FileExistsError: OUT exists and holds something.
        OutputExists: OUT can be no folder.
        NotEnoughSpace: it cannot be written.
    """
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not empty: name a new folder for the family")
    check_output(out, overwrite=False)
    try:  # now, not after ten minutes of training
        unfinished = staging.new(out)
        staging.remove_abandoned(out)
    except OSError as error:
        raise in_words(error, out) from error
    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        report = _train_family(
            unfinished.folder, seed, progress or _silent, curriculum or Curriculum()
        )
        if out.exists():
            out.rmdir()
        unfinished.bring_to_disk()
        unfinished.unlock()
        unfinished.folder.rename(out)
    except OSError as error:
        raise in_words(error, out) from error
    finally:
        torch.set_num_threads(threads)
        unfinished.remove()
    return {"out": str(out), **report}


def _silent(_name: str, _share: float) -> None:
    return None


def _train_family(folder: Path, seed: int, progress: Progress, curriculum: Curriculum) -> dict:
    tokenizer = build_tokenizer()
    base = new_model(curriculum, tokenizer, seed)
    seconds: dict[str, float] = {}
    losses: dict[str, float] = {}
    for name in NAMES:
        started = time.perf_counter()
        model = copy.deepcopy(base) if name in DOMAINS else base
        stages = (curriculum.experts[name],) if name in DOMAINS else curriculum.base
        losses[name] = train_member(
            model, tokenizer, name, stages, seed=seed, progress=partial(progress, name)
        )
        seconds[name] = round(time.perf_counter() - started, 1)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        write_card(folder / name, name, seed=seed, stages=stages, seconds=seconds[name])
    return {"seed": seed, "seconds": seconds, "loss": losses}


def train_member(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    stages: Sequence[Stage],
    *,
    seed: int,
    progress: Callable[[float], None],
) -> float:
    """Train one model of the family in place, stage after stage; return its last loss (nats)."""
    rng = random.Random(f"{seed}/{name}")
    total = sum(stage.steps for stage in stages)
    loss, done = 0.0, 0
    for stage in stages:
        loss = train(
            model,
            tokenizer,
            stage,
            domain=name if name in DOMAINS else None,
            rng=rng,
            progress=partial(_report, progress, done / total, stage.steps / total),
        )
        done += stage.steps
    return loss


def _report(progress: Callable[[float], None], start: float, weight: float, share: float) -> None:
    progress(start + weight * share)


def new_model(
    curriculum: Curriculum, tokenizer: PreTrainedTokenizerFast, seed: int
) -> LlamaForCausalLM:
    """Make an untrained Llama; its weights depend on `seed` alone, the global state is kept."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=curriculum.hidden,
        intermediate_size=curriculum.intermediate,
        num_hidden_layers=curriculum.layers,
        num_attention_heads=curriculum.heads,
        num_key_value_heads=curriculum.heads,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # transformers draws initial weights from the global generator; lend it ours.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model
