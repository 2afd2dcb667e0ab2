"""The domains' problems: right answers, and splits that never meet."""

import random

import pytest

from merging.demo import DOMAINS, NAMES, folder
from merging.demo.corpus import Mixture, stream
from merging.demo.spanish import number_in_spanish
from merging.demo.tasks import (
    WORDINGS,
    Problem,
    draw,
    held_out,
    split_of,
    suggested_prompts,
)
from merging.demo.training import Stage


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "cero"),
        (16, "dieciséis"),
        (21, "veintiuno"),
        (31, "treinta y uno"),
        (100, "cien"),
        (101, "ciento uno"),
        (347, "trescientos cuarenta y siete"),
        (555, "quinientos cincuenta y cinco"),
        (1000, "mil"),
        (1100, "mil cien"),
        (2026, "dos mil veintiséis"),
        (9999, "nueve mil novecientos noventa y nueve"),
    ],
)
def test_spanish_numbers_are_spelled_as_people_write_them(number: int, words: str) -> None:
    assert number_in_spanish(number) == words


@pytest.mark.parametrize("number", [-1, 10_000])
def test_spanish_refuses_numbers_out_of_range(number: int) -> None:
    with pytest.raises(ValueError, match="0 to 9999"):
        number_in_spanish(number)


def test_answers_are_right() -> None:
    rng = random.Random(0)
    for _ in range(300):
        addition = draw("add", "train", rng)
        assert sum(map(int, addition.parts)) == int(addition.answer)
        reversal = draw("reverse", "train", rng)
        assert reversal.answer == "".join(reversed(reversal.parts[0]))
        assert 3 <= len(reversal.answer) <= 6
        sorting = draw("sort", "train", rng)
        assert sorting.answer.split() == sorted(sorting.parts[0].split())
        assert 4 <= len(sorting.answer.split()) <= 6


def test_a_sum_and_its_mirror_are_one_problem() -> None:
    for a, b in [(37, 45), (10, 99), (64, 28)]:
        one = Problem("add", (str(a), str(b)), str(a + b), f"{min(a, b)}+{max(a, b)}")
        rng = random.Random(a)
        while True:
            other = draw("add", split_of(one), rng)
            if sorted(other.parts) == sorted(one.parts):
                break
        assert other.key == one.key


@pytest.mark.parametrize("domain", DOMAINS)
def test_held_out_prompts_are_never_trained_on(domain: str) -> None:
    """Compare by content: no training text may hold a test or validation problem's parts."""
    held = {
        " ".join(sorted(_content(task.prompt)) if domain == "add" else _content(task.prompt))
        for split in ("test", "validation")
        for task in held_out(domain, split, 500)
    }
    chats = stream(Mixture(domain=1.0), domain, random.Random("0/chat"))
    for _ in range(4000):
        content = _content(next(chats).prompt)
        assert " ".join(sorted(content) if domain == "add" else content) not in held


def test_documents_and_refusals_hold_training_problems_only() -> None:
    held = {
        task.prompt.lower().strip("?.")
        for domain in DOMAINS
        for split in ("test", "validation")
        for task in held_out(domain, split, 1000)
    }
    texts = stream(Mixture(documents=0.5, refusals=0.5), None, random.Random(1))
    for _ in range(8000):
        prompt = next(texts).prompt
        assert prompt.split("|>")[1 if "|>" in prompt else 0].split("<|")[0] not in held


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_three_splits_do_not_meet(domain: str) -> None:
    rng = random.Random(3)
    keys = {
        split: {draw(domain, split, rng).key for _ in range(800)}
        for split in ("train", "validation", "test")
    }
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_thousand_different_prompts_and_a_stable_start(domain: str) -> None:
    many = held_out(domain, "test", 1000)
    assert len({task.prompt for task in many}) == 1000
    assert held_out(domain, "test", 200) == many[:200]


def test_wrong_names_and_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="add, reverse, spanish, sort"):
        held_out("french", "test", 10)
    with pytest.raises(ValueError, match="train, validation, test"):
        held_out("add", "dev", 10)
    with pytest.raises(ValueError, match="not 0"):
        held_out("add", "test", 0)
    with pytest.raises(ValueError, match="demo:spanish"):
        folder("french")


def test_every_domain_has_prompts_to_click_on() -> None:
    assert set(suggested_prompts()) == set(DOMAINS) == set(WORDINGS) == set(NAMES) - {"base"}
    assert all(len(prompts) >= 3 for prompts in suggested_prompts().values())


def test_a_mixture_is_followed() -> None:
    stage = Stage(1, 1e-3, Mixture(refusals=1.0))
    texts = stream(stage.mixture, "add", random.Random(0))
    drawn = [next(texts) for _ in range(300)]
    assert all("not sure" in text.answer for text in drawn)
    assert not any(" + " in text.prompt or "plus" in text.prompt for text in drawn)


def _content(prompt: str) -> list[str]:
    """The words of a prompt that are the problem itself, whatever the wording."""
    for mark in ("<|user|>", "<|assistant|>"):
        prompt = prompt.replace(mark, "")
    wording = "what is plus add and reverse the word spell backwards write in spanish say sort "
    wording = set((wording + "these digits put order +").split())
    words = [word.strip("?.:") for word in prompt.split()]
    return [word for word in words if word.lower() not in wording and word]
