"""Evaluation: scores with intervals as they are known, padding that changes nothing."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from merging.demo.build import Curriculum, new_model
from merging.demo.tokenizer import build_tokenizer
from merging.errors import Cancelled
from merging.trial.decode import greedy
from merging.trial.evaluate import Limits, _longest, choose_tasks, evaluate, scored, wilson
from merging.trial.model import Model
from merging.trial.tasks import Task
from merging.trial.tokenizer import Tokenizer
from merging.trial.turns import PromptError

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
    reports: list[tuple[str, float]] = []
    result = evaluate(
        {"a": (model, tokenizer), "b": (model, tokenizer)},
        domains=["add", "sort"],
        n=5,
        progress=lambda name, share: reports.append((name, share)),
    )
    assert list(result) == ["scores"]
    assert result["scores"]["a"] == result["scores"]["b"]
    assert list(result["scores"]["a"]) == ["add", "sort"]
    assert set(result["scores"]["a"]["add"]) == {"score", "low", "high", "n"}
    assert reports[-1] == ("b", 1.0)
    for name in ("a", "b"):
        shares = [share for one, share in reports if one == name]
        assert shares == sorted(shares) and shares[-1] == 1.0 and len(shares) > 2


def test_a_folder_is_loaded_and_scores_like_the_model_in_memory(
    model, tokenizer, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    sources = {"memory": (model, tokenizer), "folder": tmp_path}
    scores = evaluate(sources, domains=["reverse"], n=4)["scores"]
    assert scores["memory"] == scores["folder"]


def test_scores_are_given_as_they_are_known_and_cancel_ends_the_rest(model, tokenizer) -> None:
    cancel = threading.Event()
    tasks = choose_tasks(["add", "sort"], 2, "test", None)
    models = {"a": (model, tokenizer), "b": (model, tokenizer)}
    scores = []
    with pytest.raises(Cancelled):
        for name, domain, score in scored(models, tasks, cancel=cancel):
            scores.append((name, domain, score["n"]))
            cancel.set()
    assert scores == [("a", "add", 2)]


def test_the_likeliest_choice_is_taken(model, tokenizer, tmp_path: Path) -> None:
    """Each choice's log-probability written out: no batch, no padding."""
    prompt, choices = "Sort 5 1", ["1 5", "5 1", "2"]
    chat = [{"role": "user", "content": prompt}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
    sums = []
    for choice in choices:
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            scores = model(torch.tensor([asked + ids])).logits[0].log_softmax(-1)
        places = range(len(asked) - 1, len(asked) + len(ids) - 1)
        sums.append(sum(float(scores[p, t]) for p, t in zip(places, ids, strict=True)))
    best = choices[sums.index(max(sums))]
    entries = [
        {
            "domain": answer,
            "prompt": prompt,
            "answer": answer,
            "scoring": "choice",
            "choices": choices,
        }
        for answer in choices
    ]
    path = write_tasks(tmp_path / "tasks.jsonl", *entries)
    scores = evaluate({"tiny": (model, tokenizer)}, tasks=path)["scores"]["tiny"]
    assert {domain for domain, score in scores.items() if score["score"] == 1.0} == {best}


def test_replies_that_are_searched_are_longer(model, tokenizer) -> None:
    tiny = Model(model, Tokenizer(tokenizer), "tiny")
    exact, searched = (Task("d", "Hi", "82", scoring) for scoring in ("exact", "contains"))
    length = len(tokenizer("82")["input_ids"])
    assert _longest(tiny, [exact], Limits()) == length + 8
    assert _longest(tiny, [exact, searched], Limits()) == 256
    assert _longest(tiny, [searched], Limits(longest=3)) == 3


def test_a_prompt_that_leaves_no_room_is_named_before_any_is_answered(
    model, tokenizer, tmp_path: Path
) -> None:
    length = model.config.max_position_embeddings
    path = write_tasks(
        tmp_path / "tasks.jsonl",
        {"domain": "short", "prompt": "Hi", "answer": "2"},
        {"domain": "long", "prompt": "Hi", "answer": "7" * length},
    )
    reports: list = []
    with pytest.raises(PromptError, match=f"m: a prompt of long .* {length} together"):
        evaluate({"m": (model, tokenizer)}, tasks=path, progress=lambda *a: reports.append(a))
    assert reports == []


def test_at_most_n_tasks_of_each_domain_are_used(model, tokenizer, tmp_path: Path) -> None:
    lines = [{"domain": "d", "prompt": str(i), "answer": "a"} for i in range(5)]
    path = write_tasks(tmp_path / "tasks.jsonl", *lines)
    source = {"m": (model, tokenizer)}
    assert evaluate(source, tasks=path, n=2)["scores"]["m"]["d"]["n"] == 2
    assert evaluate(source, tasks=path)["scores"]["m"]["d"]["n"] == 5
    with pytest.raises(ValueError, match="no domain 'e': it has d"):
        evaluate(source, tasks=path, domains=["e"])
