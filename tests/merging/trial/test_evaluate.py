"""Evaluation: exact match with intervals, padding that changes nothing, task files that teach."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from merging.demo.build import Curriculum, new_model
from merging.demo.tokenizer import build_tokenizer
from merging.errors import MergeError
from merging.trial.decode import greedy
from merging.trial.evaluate import TaskFileError, evaluate, wilson
from merging.trial.model import Model
from merging.trial.tokenizer import Tokenizer

TINY = Curriculum(hidden=32, layers=2, heads=2, intermediate=32)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return new_model(TINY, tokenizer, seed=1).eval()


def write_tasks(path: Path, *entries: object) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in entries), encoding="utf-8")
    return path


def one_by_one(model, tokenizer, prompts: list[str], steps: int) -> Iterator[str]:
    """Greedy decoding written out: no batch, no padding, no cache."""
    for prompt in prompts:
        chat = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        start = len(ids)
        for _ in range(steps):
            with torch.no_grad():
                best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if best == tokenizer.eos_token_id:
                break
            ids = [*ids, best]
        yield tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_a_padded_batch_answers_like_one_prompt_at_a_time(model, tokenizer) -> None:
    prompts = ["Hi", "What is 37 + 45?", "Sort these digits: 9 0 3 7 6 1", "Reverse planet", "a"]
    together = greedy(
        Model(model, Tokenizer(tokenizer), "tiny"), prompts, max_new_tokens=6, batch=3
    )
    assert together == list(one_by_one(model, tokenizer, prompts, 6))
    assert len(set(together)) > 1


def test_scores_count_exact_matches_after_strip(
    model, tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies = {"a": " 82 \n", "b": "82", "c": "82.", "d": "8 2", "e": "yes"}
    monkeypatch.setattr(
        "merging.trial.evaluate.greedy",
        lambda _model, prompts, **_: [replies[prompt] for prompt in prompts],
    )
    path = write_tasks(
        tmp_path / "tasks.jsonl",
        *({"domain": "sum", "prompt": prompt, "answer": "82 "} for prompt in "abcd"),
        {"domain": "word", "prompt": "e", "answer": "no"},
    )
    scores = evaluate({"tiny": (model, tokenizer)}, tasks=path)["scores"]["tiny"]
    assert scores["sum"]["score"] == 0.5 and scores["sum"]["n"] == 4
    assert (scores["sum"]["low"], scores["sum"]["high"]) == wilson(2, 4)
    assert scores["word"] == {"score": 0.0, "low": 0.0, "high": wilson(0, 1)[1], "n": 1}


def test_wilson_interval_matches_worked_values() -> None:
    """(p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), by hand for 8 of 10."""
    low, high = wilson(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    for right, n in [(0, 0), (3, 2), (-1, 5)]:
        with pytest.raises(ValueError, match="not a share"):
            wilson(right, n)


def test_every_model_and_domain_is_scored_and_progress_ends_at_one(model, tokenizer) -> None:
    seen: list[tuple[str, float]] = []
    result = evaluate(
        {"a": (model, tokenizer), "b": (model, tokenizer)},
        domains=["add", "sort"],
        n=5,
        progress=lambda name, share: seen.append((name, share)),
    )
    assert list(result) == ["scores"]
    assert result["scores"]["a"] == result["scores"]["b"]
    assert list(result["scores"]["a"]) == ["add", "sort"]
    assert set(result["scores"]["a"]["add"]) == {"score", "low", "high", "n"}
    assert seen[-1] == ("b", 1.0) and [name for name, _ in seen] == ["a", "a", "b", "b"]


def test_a_folder_is_loaded_and_scores_like_the_model_in_memory(
    model, tokenizer, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    sources = {"memory": (model, tokenizer), "folder": tmp_path}
    scores = evaluate(sources, domains=["reverse"], n=4)["scores"]
    assert scores["memory"] == scores["folder"]


def test_at_most_n_tasks_of_each_domain_are_used(model, tokenizer, tmp_path: Path) -> None:
    lines = [{"domain": "d", "prompt": str(i), "answer": "a"} for i in range(5)]
    path = write_tasks(tmp_path / "tasks.jsonl", *lines)
    source = {"m": (model, tokenizer)}
    assert evaluate(source, tasks=path, n=2)["scores"]["m"]["d"]["n"] == 2
    assert evaluate(source, tasks=path)["scores"]["m"]["d"]["n"] == 5
    with pytest.raises(ValueError, match="no domain 'e': it has d"):
        evaluate(source, tasks=path, domains=["e"])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: expected an object"),
        ('{"domain": "d", "prompt": "p"}', 'line 2: "answer" is missing'),
        ('{"domain": "d", "prompt": "p", "answer": 4}', 'line 2: "answer" must be a text'),
        ('{"domain": "", "prompt": "p", "answer": "a"}', 'line 2: "domain" must be a text'),
        ('{"domain": "d", "prompt": "p", "answer": "a", "n": 1}', 'line 2: unknown key "n"'),
    ],
)
def test_a_bad_line_is_named(line: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"domain": "d", "prompt": "p", "answer": "a"}\n' + line, encoding="utf-8")
    with pytest.raises(TaskFileError, match=re.escape(f"{path}, {complaint}")):
        evaluate({}, tasks=path)
    assert issubclass(TaskFileError, MergeError)


def test_a_missing_empty_or_binary_task_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, complaint in [
        ("absent", "cannot be read"),
        ("empty", "holds no task"),
        ("binary", "cannot be read"),
    ]:
        with pytest.raises(TaskFileError, match=complaint):
            evaluate({}, tasks=tmp_path / name)
