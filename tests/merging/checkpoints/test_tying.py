"""What a config that does not mention tying means."""

from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING

from merging.checkpoints.tying import TIED_BY_DEFAULT, ties_embeddings


@pytest.mark.parametrize("model_type", sorted(TIED_BY_DEFAULT & set(CONFIG_MAPPING.keys())))
def test_the_defaults_are_those_of_transformers(model_type: str) -> None:
    config = CONFIG_MAPPING[model_type]()
    text = getattr(config.get_text_config(), "tie_word_embeddings", None)
    assert getattr(config, "tie_word_embeddings", text)


@pytest.mark.parametrize("model_type", ["llama", "mistral", "mixtral", "gpt_neox", "phi3", "gptj"])
def test_types_that_are_untied_by_default_are_not_listed(model_type: str) -> None:
    assert not CONFIG_MAPPING[model_type]().tie_word_embeddings
    assert not ties_embeddings({"model_type": model_type})


def test_what_the_config_says_wins() -> None:
    assert ties_embeddings({"model_type": "gpt2"})
    assert not ties_embeddings({"model_type": "gpt2", "tie_word_embeddings": False})
    assert ties_embeddings({"model_type": "llama", "tie_word_embeddings": True})
    assert ties_embeddings({"model_type": "x", "text_config": {"tie_word_embeddings": True}})
    assert not ties_embeddings({})
