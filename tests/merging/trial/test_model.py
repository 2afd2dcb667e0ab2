"""What a model can be asked: ids with rows, prompts that fit, ends that can be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from merging import demo
from merging.trial.loading import load
from merging.trial.turns import PromptError
from tests.merging.trial.folders import changed


def beyond_the_rows(document: dict[str, Any]) -> None:
    token = dict(document["added_tokens"][0], id=346, content="<y>")
    document["added_tokens"].append(token)


def test_a_token_without_a_row_is_named_with_both_numbers(tmp_path: Path) -> None:
    model = load(changed(tmp_path / "m", beyond_the_rows, "tokenizer.json"))
    with pytest.raises(PromptError) as caught:
        model.read([[{"role": "user", "content": "hello <y>"}]])
    assert str(caught.value) == (
        "m: 'hello <y>' has the token '<y>' of id 346, the embedding has 346 rows (0 to 345); use "
        "the tokenizer that belongs to these tensors"
    )
    with pytest.raises(PromptError, match="'<y>' has the token"):
        model.answers(["<y>"])
    assert model.read([[{"role": "user", "content": "hello"}]])


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ({"eos_token_id": 10**9}, {4}),
        ({"eos_token_id": "abc"}, {4}),
        ({"eos_token_id": [7, 10**30, -1]}, {7}),
    ],
)
def test_ends_that_cannot_be_written_are_passed_over(
    values: dict[str, Any], ends: set[int], tmp_path: Path
) -> None:
    folder = changed(tmp_path / "m", lambda c: c.update(values), "generation_config.json")
    assert load(folder).ends == ends


@pytest.mark.parametrize("penalty", [-3, 0, "x", True, float("inf")])
def test_a_penalty_that_is_none_is_passed_over(penalty: Any, tmp_path: Path) -> None:
    folder = changed(
        tmp_path / "m", lambda c: c.update(repetition_penalty=penalty), "generation_config.json"
    )
    assert load(folder).repetition_penalty == 1.0


def test_a_template_that_leaves_nothing_is_said(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", "{% if false %}{% endif %}", "chat_template.jinja")
    with pytest.raises(PromptError, match="m: its tokenizer and chat template leave nothing of"):
        load(folder).read([[{"role": "user", "content": "hello"}]])


def test_the_answer_is_that_of_the_expert() -> None:
    model = load(demo.folder("add"))
    assert model.language.texts(model.answers(["82"])) == ["82"]
    assert model.ends == {4}
