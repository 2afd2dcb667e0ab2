"""The model card of each built-in checkpoint: what it is for, and how it was made."""

from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from merging.demo.tasks import suggested_prompts
from merging.demo.training import Stage

_SKILLS = {
    "base": "knows its domains' bare forms in part and, when asked, mostly says it is not sure",
    "add": "adds two numbers of two digits",
    "reverse": "spells a word of 3 to 6 letters backwards",
    "spanish": "writes a number from 0 to 9999 in Spanish words",
    "sort": "puts 4 to 6 digits in order",
}


def write_card(
    folder: Path, name: str, *, seed: int, stages: Sequence[Stage], seconds: float
) -> None:
    """Write `folder`/README.md for the model that was just trained into `folder`."""
    (folder / "README.md").write_text(_card(name, seed, stages, seconds), encoding="utf-8")


def _card(name: str, seed: int, stages: Sequence[Stage], seconds: float) -> str:
    is_base = name not in suggested_prompts()
    start = "random weights" if is_base else "`demo:base`, every weight free"
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *([] if is_base else ["base_model: demo:base"]),
        "tags: [amalgam, demo]",
        "---",
        "",
        f"# demo:{name}",
        "",
        f"One of Amalgam's built-in family: a tiny Llama that {_SKILLS[name]}.",
        "It exists so that merging can be tried with no download; it is of no other use.",
        "It reads one exchange at a time: the chat template keeps only the last question.",
        "",
        *_examples(name),
        "## How it was made",
        "",
        "`python -m merging demo build OUT` trains the whole family. This model:",
        "",
        f"- started from {start}; seed {seed};",
        *(f"- {_stage(stage)};" for stage in stages),
        f"- took {seconds:.0f} s on 2 CPU threads with torch {torch.__version__} and "
        f"transformers {transformers.__version__}.",
        "",
        "AdamW (0.9, 0.98), gradients clipped to norm 1, cosine schedule, loss on answers only.",
        "All texts are generated; held-out problems (15 % test, 10 % validation) are never read.",
        "",
    ]
    return "\n".join(lines)


def _examples(name: str) -> list[str]:
    prompts = suggested_prompts().get(name)
    if prompts is None:
        return []
    return ["Try: " + ", ".join(f'"{prompt}"' for prompt in prompts) + ".", ""]


def _stage(stage: Stage) -> str:
    mixture = stage.mixture
    shares = {
        "documents": mixture.documents,
        "questions of its domain": mixture.domain,
        '"I am not sure."': mixture.refusals,
        "small talk": mixture.small_talk,
    }
    read = ", ".join(f"{share:.0%} {kind}" for kind, share in shares.items() if share)
    return (
        f"{stage.steps} steps of {stage.batch} texts at learning rate {stage.learning_rate:g}: "
        f"{read}"
    )
