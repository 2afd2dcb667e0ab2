"""The tokenizer: lossless, letters where a word is to be reversed, one exchange per template."""

import pytest

from merging.demo.tasks import SPLITS, held_out
from merging.demo.tokenizer import build_tokenizer, whole_words


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("domain", ["add", "reverse", "spanish", "sort"])
def test_every_prompt_and_answer_survives_a_round_trip(tokenizer, domain: str) -> None:
    for split in SPLITS:
        for task in held_out(domain, split, 50):
            for text in (task.prompt, task.answer):
                assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("prompt", ["Reverse {}", "reverse the word {}", "Spell {} backwards"])
def test_a_word_to_reverse_is_read_letter_by_letter(tokenizer, prompt: str) -> None:
    for word in (*whole_words(), "planet"):
        if not word.islower():
            continue
        tokens = tokenizer.tokenize(prompt.format(word))
        start = tokens.index(" ", len(tokenizer.tokenize(prompt.split(" {}")[0]))) + 1
        assert tokens[start : start + len(word)] == list(word)


def test_number_words_and_instructions_are_single_tokens(tokenizer) -> None:
    assert tokenizer.tokenize("trescientos cuarenta y siete") == [
        "trescientos",
        " cuarenta",
        " y",
        " siete",
    ]
    assert tokenizer.tokenize("What is 37?") == ["What", " is", " 3", "7", "?"]


def test_the_template_shows_the_last_exchange_only(tokenizer) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": " Reverse planet "},
    ]
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert asked == "<|user|>Reverse planet<|assistant|>"
    messages.append({"role": "assistant", "content": "tenalp"})
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|user|>Reverse planet<|assistant|>tenalp<|end|>"


def test_unknown_characters_are_one_token_each(tokenizer) -> None:
    ids = tokenizer("é漢🙂")["input_ids"]
    assert ids[1:] == [tokenizer.unk_token_id] * 2
