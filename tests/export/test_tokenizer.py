"""An exported tokenizer reads every text as the prompt does, id by id."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rabtriever.errors import InputError
from rabtriever.export.tokenizer import TowerTokenizer, document_tokenizer, pair_tokenizer, query_tokenizer
from rabtriever.prompt import Prompt, PromptConfig
from tiny_models import tiny_tokenizer

TEMPLATES = {"document": "Document: {text}\n", "query": "Query: {text}\n<T>?"}
ON_LINES = {"document": "Document:\n{text}\n", "query": "Query:\n{text}\n<T>?"}
TEXTS = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.sampled_from([" ", "\n\n", "  ", "<|im_end|>", "<tool>", "<wide>", "</s>", "\u0301", "word", " the sponge"]),
    ),
    max_size=8,
).map("".join)


def with_tokens(*tokens: AddedToken, chat: bool = True) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer(chat=chat)
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def sentencepiece_like(*tokens: str) -> PreTrainedTokenizerFast:
    """As Gemma's: spaces become a visible character, unknown ones become bytes, line breaks are added tokens."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.ByteFallback()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    alphabet = list("abcdefghijklmnopqrstuvwxyzDQTF:<>?,.\n\u2581")
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Document: take the sponge Query: the coke on the table <T>? <F>"] * 3, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    wrapped.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
    return wrapped


def cleaned() -> PreTrainedTokenizerFast:
    """A normalizer and a pre-tokenizer of its own, which must both stay."""
    tokenizer = Tokenizer.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}| ?[^\s\p{N}]+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerBase:
    make: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
        "chat": tiny_tokenizer,
        "base": lambda: tiny_tokenizer(chat=False, bos=True),
        "cleaned": cleaned,
        "sentencepiece": sentencepiece_like,
        "control": lambda: with_tokens(AddedToken("<tool>", normalized=False, special=False)),
        "wide": lambda: with_tokens(AddedToken("  ", normalized=True, special=False)),
        "lines": lambda: sentencepiece_like("\n", "\n\n", "<tool>"),
    }
    return make[kind]()


KINDS = ("chat", "base", "cleaned", "sentencepiece", "control", "wide", "lines")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TowerTokenizer], PreTrainedTokenizerBase]:
    """Saves an exported tokenizer and loads it as anybody would."""

    def load(tower: TowerTokenizer) -> PreTrainedTokenizerBase:
        folder: Path = tmp_path_factory.mktemp("tower")
        tower.save(folder)
        return AutoTokenizer.from_pretrained(folder)

    return load


def prompt_of(kind: str, templates: dict[str, str] = TEMPLATES, query_start: float = 1.0, limit: int = 12) -> Prompt:
    config = PromptConfig(**templates, max_document_tokens=limit, max_query_tokens=limit, query_start=query_start)
    return Prompt(tokenizer_of(kind), config)


@pytest.mark.parametrize("templates", [TEMPLATES, ON_LINES], ids=["space", "line"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_same_ids(kind: str, templates: dict[str, str], load: Callable) -> None:
    start, end = prompt_of(kind, templates, 1.0), prompt_of(kind, templates, 0.0)
    towers = [document_tokenizer(start), query_tokenizer(start), query_tokenizer(end)]
    loaded = [load(tower) for tower in towers]
    reads = [start.document_ids, start.query_ids, end.query_ids]

    @given(TEXTS)
    def check(text: str) -> None:
        for tower, tokenizer, read in zip(towers, loaded, reads, strict=True):
            if tower.empty_is_space and not text:
                continue
            if kind == "control" and tower.prompt:  # its one exception, which the README names
                assume(not text.startswith("<tool>"))
            assert tokenizer(tower.prompt + text, truncation=True)["input_ids"] == read(text)

    check()


@pytest.mark.parametrize("kind", ["chat", "base", "cleaned", "sentencepiece", "control"])
def test_a_pair_has_the_same_ids_with_the_document_first(kind: str, load: Callable) -> None:
    prompt = prompt_of(kind, ON_LINES if kind == "control" else TEMPLATES, limit=400)
    tokenizer = load(pair_tokenizer(prompt))

    @given(TEXTS, TEXTS)
    def check(query: str, document: str) -> None:
        found = tokenizer([(query, document)], truncation=True)
        assert found["input_ids"][0] == prompt.document_ids(document) + prompt.query_ids(query)

    check()


@pytest.mark.parametrize("kind", ["wide", "lines"])
def test_a_pair_that_cannot_be_read_the_same_is_refused(kind: str, load: Callable) -> None:
    with pytest.raises(InputError, match="added tokens such as"):
        pair_tokenizer(prompt_of(kind))
    pair_tokenizer(prompt_of(kind, ON_LINES))  # as the hint says
    mixed = {"document": ON_LINES["document"], "query": TEMPLATES["query"]}
    with pytest.raises(InputError, match="space before one of the two"):
        pair_tokenizer(prompt_of("chat", mixed))


def test_the_end_that_is_kept_is_the_one_the_prompt_keeps_more_of() -> None:
    sides = [query_tokenizer(prompt_of("chat", query_start=share)).config["truncation_side"] for share in (0.0, 0.5, 1)]
    assert sides == ["left", "right", "right"]


def test_there_is_no_chat_template(load: Callable) -> None:
    assert tokenizer_of("chat").chat_template
    assert load(document_tokenizer(prompt_of("chat"))).chat_template is None


def test_a_tokenizer_without_a_pipeline_is_refused() -> None:
    prompt = prompt_of("chat")

    class Slow:
        pass

    prompt.tokenizer = Slow()  # type: ignore[assignment]
    with pytest.raises(InputError, match="Slow is not built on the tokenizers library"):
        document_tokenizer(prompt)
