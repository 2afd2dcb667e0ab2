"""The family's tokenizer: one token per character, and whole words only where they help.

Instruction words, small talk and Spanish number words are single tokens. They and the digits come
with and without the space before them: texts become half as long, and training as much faster. The
word to reverse must stay in letters even when it is such a word ("Reverse hello"), so after a
reversing instruction no whole word is matched.
"""

import re
import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from merging.demo.small_talk import OTHER_TOPICS, REFUSAL, SMALL_TALK
from merging.demo.spanish import WORDS
from merging.demo.tasks import WORDINGS

PAD, UNKNOWN = "<|pad|>", "<|unknown|>"
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"

_SIGNS = "0123456789+="

# The models have only ever read one exchange, so the template shows them the last one only.
CHAT_TEMPLATE = (
    "{%- set last = namespace(user=0) -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- for message in messages[last.user:] -%}"
    "{%- if message['role'] == 'user' -%}{{- '<|user|>' + message['content'] | trim -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- '<|assistant|>' + message['content'] | trim + '<|end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def whole_words() -> list[str]:
    """Return the words that are one token each, sorted."""
    texts = [REFUSAL, *OTHER_TOPICS, *(text for pair in SMALL_TALK for text in pair)]
    texts += [wording for wordings in WORDINGS.values() for wording in wordings]
    words = {word for text in texts for word in re.findall(r"[A-Za-z]{2,}", text)}
    return sorted(words | set(WORDS))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tokenizer from scratch; no training, so it is the same in every build."""
    special = [PAD, UNKNOWN, USER, ASSISTANT, END]
    characters = [*string.printable[:95], "\n", *"áéíóúüñÁÉÍÓÚÜÑ¿¡"]
    words = whole_words()
    after_space = [f" {token}" for token in (*_SIGNS, *words)]
    tokens = [*special, *characters, *words, *after_space]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # Longest first: "sesenta" must not be read as "se" and letters.
    pattern = "|".join(sorted(words, key=lambda word: (-len(word), word)))
    reversing = "".join(f"(?<!{before})(?<!{before} )" for before in ("everse", "pell", " word"))
    split = Regex(rf"{reversing} ?\b(?:{pattern})\b| [{_SIGNS}]|[\s\S]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(split, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
