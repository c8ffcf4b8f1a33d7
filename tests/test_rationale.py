"""Rationales are the base model's words, whatever the teacher has learnt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever import InputError, Reranker
from rabtriever.generation import write_on
from rabtriever.rationale import RationaleWriter, _first_sentence
from rabtriever.training.config import LoraConfig, TeacherConfig
from toy_data import SHORT, toy_dataset

QUERY, DOCUMENT = "I spilled my coke", "take the sponge"


def test_they_are_the_base_models_words(tiny_folder: Callable[..., Path]) -> None:
    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    before = RationaleWriter(teacher, "float32")
    words = {fits: before.write(QUERY, DOCUMENT, fits=fits) for fits in (True, False)}
    assert words[True] != words[False]
    teacher.fit(toy_dataset(), TeacherConfig(lora=LoraConfig(rank=4), learning_rate=0.1, epochs=1.0, freeze_layers=0))
    after = RationaleWriter(teacher, "float32")
    assert {fits: after.write(QUERY, DOCUMENT, fits=fits) for fits in (True, False)} == words
    (prefix,) = teacher.read([DOCUMENT])
    prompt = after._prompts[True]
    own = teacher.backbone.tokenizer.decode(write_on(teacher.backbone, prefix, prompt.query_ids(QUERY), 48))
    assert _first_sentence(own) != words[True]  # the test would notice the teacher's weights


def test_the_question_stands_behind_the_document_in_one_message(tiny_folder: Callable[..., Path]) -> None:
    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    writer = RationaleWriter(teacher, "float32")
    for fits, be in ((True, "can Query be"), (False, "can Query not be")):
        prompt = writer._prompts[fits]
        text = teacher.backbone.tokenizer.decode(prompt.document_ids(DOCUMENT) + prompt.query_ids(QUERY))
        assert text.startswith("<|im_start|>user\nD: take the sponge\nQuery: I spilled my coke\nWhy " + be)
        assert text.endswith("one short sentence.<|im_end|>\n<|im_start|>assistant\n")


def test_what_has_no_chat_model_says_so(tiny_folder: Callable[..., Path]) -> None:
    plain = Reranker.from_pretrained(tiny_folder("llama", chat=False), prompt=SHORT, dtype="float32")
    with pytest.raises(InputError, match="is no chat model"):
        RationaleWriter(plain)
    chat = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    with pytest.raises(InputError, match="that is not known"):
        RationaleWriter(Reranker(chat.backbone, chat.prompt))
