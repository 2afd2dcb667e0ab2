"""The shipped family and recipes: small, loadable, skilled where they should be and only there."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from merging import recipe as recipes
from merging.demo import DOMAINS, NAMES, folder
from merging.demo.tasks import suggested_prompts
from merging.demo.tokenizer import build_tokenizer
from merging.run.merge import merge
from merging.trial.decode import greedy
from merging.trial.evaluate import evaluate
from merging.trial.model import Model
from merging.trial.tokenizer import Tokenizer

ASSETS = Path(__file__).resolve().parents[3] / "assets"
PROMPTS = 100  # the full measurement is benchmarks/demo_scores.py


@pytest.fixture(scope="module")
def scores() -> dict[str, dict[str, float]]:
    measured = evaluate({name: folder(name) for name in NAMES}, n=PROMPTS)["scores"]
    return {
        name: {domain: cell["score"] for domain, cell in domains.items()}
        for name, domains in measured.items()
    }


def test_checkpoints_stay_small() -> None:
    files = [path for path in (ASSETS / "demo").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6
    assert max(path.stat().st_size for path in files) <= 10e6


@pytest.mark.parametrize("name", NAMES)
def test_every_folder_is_whole(name: str) -> None:
    files = {path.name for path in folder(name).iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "README.md"} <= files
    shipped, built = AutoTokenizer.from_pretrained(folder(name)), build_tokenizer()
    assert shipped.get_vocab() == built.get_vocab()
    assert shipped.chat_template == built.chat_template
    text = "Write 347 in Spanish, reverse the word planet"
    assert shipped(text)["input_ids"] == built(text)["input_ids"]


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_expert_masters_its_own_domain_and_no_other(scores, domain: str) -> None:
    # 92 of 100 leaves room for chance around the 95 % that 1,000 prompts must show
    assert scores[domain][domain] >= 0.92
    for other in set(DOMAINS) - {domain}:
        assert scores[domain][other] <= 0.2
    assert scores["base"][domain] <= 0.2


def test_the_first_recipe_keeps_both_experts(scores, tmp_path: Path) -> None:
    pair = ("add", "sort")
    merge(recipes.load(ASSETS / "recipes" / "add_sort.yaml"), tmp_path / "m", device="cpu")
    # 100 prompts would leave 3 points to chance
    merged = evaluate({"merged": tmp_path / "m"}, domains=pair, n=1000)["scores"]["merged"]
    for domain in pair:
        assert merged[domain]["score"] >= 0.9 * scores[domain][domain]


@pytest.mark.parametrize("file", sorted((ASSETS / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid_and_measured(file: Path) -> None:
    recipes.load(file)
    measured = json.loads((ASSETS / "demo" / "scores.json").read_text(encoding="utf-8"))
    assert set(measured["scores"][file.stem]) == set(DOMAINS)


def test_suggested_prompts_are_answered_by_their_experts() -> None:
    answers = {
        "add": ["82", "92", "76"],
        "reverse": ["revlis", "nedrag", "cisum"],
        "spanish": ["trescientos cuarenta y siete", "cincuenta y dos", "dos mil veintiséis"],
        "sort": ["1 2 4 5", "0 3 6 7 9", "1 2 3 4 6 8"],
    }
    for domain, prompts in suggested_prompts().items():
        model = AutoModelForCausalLM.from_pretrained(folder(domain)).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder(domain))
        expert = Model(model, Tokenizer(tokenizer), domain)
        assert greedy(expert, prompts, max_new_tokens=30) == answers[domain]
