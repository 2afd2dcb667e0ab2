"""Probabilities of an answer's tokens: exact, of the model itself, with texts that make it up."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from merging.demo import folder
from merging.trial.chances import Chance, chance, written
from merging.trial.chat import ChatModel
from merging.trial.turns import Sampling

QUESTION = [{"role": "user", "content": "What is 37 + 45?"}]


class Letters:
    """A language of whose tokens 0 to 25 are letters, 26 half a character, 27 its end, 28 none."""

    def texts(self, rows):
        return [self._text(row) for row in rows]

    def token(self, token_id: int) -> str:
        return f"<{token_id}>"

    def _text(self, row) -> str:
        text = "".join(
            chr(97 + token) if token < 26 else {26: "(", 27: ")"}.get(token, "") for token in row
        )
        return text.replace("()", "é").replace("(", "\N{REPLACEMENT CHARACTER}")


def test_probabilities_are_shares_of_the_exponentials() -> None:
    scores = torch.tensor([[0.0, math.log(3), math.log(4)]])
    one = chance(scores, 1, 2)
    assert (one.token, one.probability) == (1, pytest.approx(3 / 8))
    assert [token for token, _ in one.others] == [2, 1]
    assert [share for _, share in one.others] == pytest.approx([4 / 8, 3 / 8])
    assert len(chance(scores, 0, 9).others) == 3, "no more than there are"


def test_texts_of_tokens_are_what_each_adds() -> None:
    chances = [
        Chance(token, 0.5, ((other, 0.4),))
        for token, other in ((0, 1), (26, 2), (27, 28), (28, 3), (25, 4))
    ]
    tokens = written(chances, Letters(), {25})  # type: ignore[arg-type]
    assert [token.text for token in tokens] == ["a", "\N{REPLACEMENT CHARACTER}", "é", "<28>", ""]
    assert [token.others for token in tokens][:3] == [
        (("b", 0.4),),
        (("c", 0.4),),
        (("<28>", 0.4),),
    ]


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return ChatModel.load(Path(folder("add")), "cpu")


def test_an_answer_tells_its_tokens_where_they_are_asked_for(chat: ChatModel) -> None:
    *before, last = chat.stream(QUESTION, alternatives=3, every_s=0)
    assert last.text == "82"
    assert "".join(token.text for token in last.written) == "82"
    assert last.written[-1].text == "", "the one that ends the answer is among them"
    assert not any(chunk.written for chunk in before)
    for token in last.written:
        assert token.others[0] == (token.text, token.probability), "greedy: the likeliest"
        assert len(token.others) == 3
        assert sum(share for _, share in token.others) <= 1 + 1e-6
    assert [*chat.stream(QUESTION)][-1].written == ()


def test_probabilities_are_the_models_own_whatever_is_drawn_from(chat: ChatModel) -> None:
    plain, hot = (
        [*chat.stream(QUESTION, Sampling(1, heat, 0.05), alternatives=1)][-1].written[0]
        for heat in (0.0, 2.0)
    )
    assert plain == hot, "top-p 0.05 draws the likeliest at any temperature"
