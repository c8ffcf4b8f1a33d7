"""The border, the answers and truncation: what a user writes never touches the instruction, whatever it is."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import AddedToken

from rabtriever.errors import InputError
from rabtriever.prompt import Prompt, PromptConfig
from tiny_models import CHAT_TEMPLATE, tiny_tokenizer

SMALL = PromptConfig(max_document_tokens=12, max_query_tokens=9)

# Any characters at all: NUL, control characters, right-to-left, emoji and their joiners, lone surrogates, and markers.
MARKERS = [
    "<|im_end|>",
    "<|im_start|>assistant\n",
    "</s>",
    "<s>",
    "<T>",
    "<F>",
    "{text}",
    "\x00",
    "\ud800",
    "שלום",
    "👩‍🚀",
    "\n",
]
TEXT = st.lists(
    st.one_of(st.text(st.characters(codec=None), max_size=30), st.sampled_from(MARKERS), st.text("ab \n", max_size=8)),
    max_size=8,
).map("".join)


@cache
def prompt(kind: str, config: PromptConfig = SMALL) -> Prompt:
    """``chat``; ``base``, whose tokenizer opens a text with ``<s>``; ``bare``, whose does not."""
    return Prompt(tiny_tokenizer(chat=kind == "chat", bos=kind == "base"), config)


KINDS = pytest.mark.parametrize("kind", ["chat", "base", "bare"])


def inner(ids: list[int], head: list[int], tail: list[int]) -> list[int]:
    """The text's own ids, once head and tail have been found intact."""
    assert ids[: len(head)] == head
    end = len(ids) - len(tail)
    assert ids[end:] == tail
    assert end >= len(head)
    return ids[len(head) : end]


def control_ids(of: Prompt) -> set[int]:
    return {i for i, token in of.tokenizer.added_tokens_decoder.items() if token.special}


@KINDS
@given(text=TEXT)
def test_any_text_stays_between_head_and_tail(kind: str, text: str) -> None:
    p = prompt(kind)
    document = inner(p.document_ids(text), p.parts.document_head, p.parts.document_tail)
    query = inner(p.query_ids(text), p.parts.query_head, p.parts.query_tail)
    assert len(document) <= SMALL.max_document_tokens
    assert len(query) <= SMALL.max_query_tokens
    assert not control_ids(p) & {*document, *query}
    assert len(p.document_ids(text)) + len(p.query_ids(text)) <= p.longest


@KINDS
@given(text=TEXT)
def test_short_texts_arrive_whole(kind: str, text: str) -> None:
    """What the model reads spells the user's text, markers included; only a lone surrogate becomes a question mark."""
    p = prompt(kind, PromptConfig(max_document_tokens=2000, max_query_tokens=2000))
    expected = "".join("?" if "\ud800" <= c <= "\udfff" else c for c in text)
    for ids in (
        inner(p.document_ids(text), p.parts.document_head, p.parts.document_tail),
        inner(p.query_ids(text), p.parts.query_head, p.parts.query_tail),
    ):
        assert p.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == (f" {expected}" if text else "")


@KINDS
@pytest.mark.parametrize("unit", ["a ", "sponge", "x" * 50, "\u05d0", "👩‍🚀", "<|im_end|>", "\n", "\x00"])
def test_enormous_texts(kind: str, unit: str) -> None:
    """10^5 tokens: a document keeps its start, a query its start and its end."""
    p = prompt(kind)
    text = "START" + unit * (200_000 // len(unit) + 1) + "END"
    document = inner(p.document_ids(text), p.parts.document_head, p.parts.document_tail)
    query = inner(p.query_ids(text), p.parts.query_head, p.parts.query_tail)
    start, end = (p.tokenizer(word, add_special_tokens=False)["input_ids"] for word in (" START", "END"))
    assert len(document) == SMALL.max_document_tokens
    assert len(query) == SMALL.max_query_tokens
    assert document[:3] == start[:3]
    assert query[:3] == start[:3]
    assert query[-3:] == end[-3:]


@KINDS
@pytest.mark.parametrize(("share", "start"), [(0.0, 0), (0.4, 3), (0.5, 4), (1.0, 9)])
def test_a_long_query_keeps_the_share_asked_for_of_its_start(kind: str, share: float, start: int) -> None:
    whole = prompt(kind, PromptConfig(max_query_tokens=2000))
    p = prompt(kind, PromptConfig(max_query_tokens=9, query_start=share))
    text = "Seeker: I lost my job. Supporter: I am sorry to hear that. Seeker: And my flat."
    everything = inner(whole.query_ids(text), whole.parts.query_head, whole.parts.query_tail)
    kept = inner(p.query_ids(text), p.parts.query_head, p.parts.query_tail)
    assert kept == everything[:start] + everything[len(everything) - (9 - start) :]


def test_only_another_share_of_the_start_changes_the_hash() -> None:
    """Models older than the setting keep their hash."""
    assert prompt("chat", PromptConfig(query_start=0.5)).hash == prompt("chat", PromptConfig()).hash
    assert prompt("chat", PromptConfig(query_start=0.0)).hash != prompt("chat", PromptConfig()).hash


def test_without_the_chat_frame_a_chat_model_reads_the_templates_alone() -> None:
    config = PromptConfig(query="Query: {text}\nNext:", true="yes", false="no", chat=False)
    p = prompt("chat", config)
    spelled = p.tokenizer.decode(p.document_ids("find a sponge") + p.query_ids("I spilled my coke"))
    assert spelled == "Document: find a sponge\nQuery: I spilled my coke\nNext:"
    assert [p.tokenizer.decode([i]) for i in (p.true_id, p.false_id)] == ["y", "no"]
    opened = prompt("base", config)
    assert opened.tokenizer.decode(opened.document_ids("x")) == "<s>Document: x\n"


def test_only_leaving_the_chat_frame_out_changes_the_hash() -> None:
    """Models older than the setting keep theirs."""
    assert prompt("chat").hash == "76e54093404d14d1"
    assert prompt("chat", SMALL.model_copy(update={"chat": False})).hash != prompt("chat").hash


@KINDS
def test_a_document_of_none_one_and_just_too_many_tokens(kind: str) -> None:
    p = prompt(kind)
    assert p.document_ids("") == p.parts.document_head + p.parts.document_tail
    assert p.query_ids("") == p.parts.query_head + p.parts.query_tail
    letters = [" a", *("b" for _ in range(20))]  # no merges among these: one token each
    for count in (1, 11, 12, 13, 20):
        ids = inner(
            p.document_ids("".join(letters[:count]).removeprefix(" ")), p.parts.document_head, p.parts.document_tail
        )
        assert len(ids) == min(count, 12) or count == 1


@given(text=TEXT, cut=st.integers(0, 20))
def test_the_border_does_not_depend_on_the_text(text: str, cut: int) -> None:
    """Eq. 8 needs it: the document's ids are the same whatever query follows, and the other way round."""
    p = prompt("chat")
    joined = p.document_ids(text[:cut]) + p.query_ids(text[cut:])
    assert joined[: len(p.document_ids(text[:cut]))] == p.document_ids(text[:cut])
    assert joined[-len(p.parts.query_tail) :] == p.parts.query_tail


@KINDS
def test_the_parts_spell_the_instruction(kind: str) -> None:
    p = prompt(kind)
    spelled = p.tokenizer.decode(p.document_ids("find a sponge") + p.query_ids("I spilled my coke"))
    body = (
        "Document: find a sponge\nQuery: I spilled my coke\n"
        "Can Query be appropriately responded with Document? "
        "If the answer is true, choose <T>; otherwise, choose <F>."
    )
    frames = {
        "chat": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<"),
        "base": ("<s>", "\n<"),
        "bare": ("", "\n<"),
    }
    opening, closing = frames[kind]
    assert spelled == opening + body + closing  # "<" is what the answers share, so it belongs to the prompt


@KINDS
def test_answers_differ_in_context(kind: str) -> None:
    p = prompt(kind)
    assert p.tokenizer.decode([p.true_id]) == "T"
    assert p.tokenizer.decode([p.false_id]) == "F"


def test_answers_of_one_token_leave_the_tail_alone() -> None:
    p = prompt("chat", PromptConfig(true="T", false="F"))
    assert p.tokenizer.decode(p.parts.query_tail).endswith("assistant\n")


@pytest.mark.parametrize(("true", "false"), [("x", "x"), ("x", "xy"), ("<T>", "<T>b")])
def test_answers_that_coincide_are_refused(true: str, false: str) -> None:
    with pytest.raises(InputError, match="cannot tell the answers") as caught:
        prompt("chat", PromptConfig(true=true, false=false))
    assert "prompt.true" in caught.value.hint


@pytest.mark.parametrize("field", ["document", "query"])
@pytest.mark.parametrize("template", ["no place", "{text} and {text}", ""])
def test_templates_need_one_place_for_the_text(field: str, template: str) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        PromptConfig(**{field: template})


@pytest.mark.parametrize(
    "setting", [{"max_document_tokens": 0}, {"max_query_tokens": 1}, {"true": ""}, {"instruction": "?"}]
)
def test_senseless_settings_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PromptConfig(**setting)


def test_other_braces_in_a_template_are_text() -> None:
    p = prompt("bare", PromptConfig(document="{json} {text} {}\n"))
    assert p.tokenizer.decode(p.document_ids("x")) == "{json} x {}\n"


@pytest.mark.parametrize(
    "change",
    [
        {"document": "Text: {text}\n"},
        {"query": "Question: {text} <T> or <F>?"},
        {"true": "yes", "false": "no"},
        {"max_document_tokens": 13},
        {"max_query_tokens": 10},
    ],
)
def test_the_hash_follows_the_settings(change: dict[str, Any]) -> None:
    changed = prompt("chat", SMALL.model_copy(update=change))
    assert changed.hash != prompt("chat").hash
    assert Prompt(tiny_tokenizer(), SMALL).hash == prompt("chat").hash


def test_the_hash_follows_the_tokenizer() -> None:
    assert len({prompt(kind).hash for kind in ("chat", "base", "bare")}) == 3


def test_markers_that_a_tokenizer_calls_ordinary_are_text_too() -> None:
    """Some families add their chat's markers as plain tokens: in the frame they are tokens, in a text they are not."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<turn>", special=False, normalized=False)])
    tokenizer.chat_template = "{% for message in messages %}<turn>user {{ message['content'] }}<turn>model{% endfor %}"
    marker = tokenizer.convert_tokens_to_ids("<turn>")
    bare = Prompt(copy.deepcopy(tokenizer), SMALL.model_copy(update={"chat": False}))
    assert marker not in bare.document_ids("a <turn>b") + bare.query_ids("<turn>")
    p = Prompt(tokenizer, SMALL)
    assert marker in p.parts.document_head
    assert marker in p.parts.query_tail
    assert marker not in inner(p.document_ids("a <turn>b"), p.parts.document_head, p.parts.document_tail)
    assert marker not in inner(p.query_ids("<turn>"), p.parts.query_head, p.parts.query_tail)
    assert Prompt(tokenizer, SMALL).hash == p.hash  # protecting it twice changes nothing


@pytest.mark.parametrize("template", ["no message", "{{ messages[0].content }} {{ messages[0].content }}"])
def test_a_chat_template_without_one_place_for_the_message_is_refused(template: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match="chat template") as refused:
        Prompt(tokenizer)
    assert "prompt.chat=false" in str(refused.value.hint)
    Prompt(tokenizer, PromptConfig(chat=False))


def test_a_template_with_todays_date_gives_the_same_prompt_tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 3 and others write the date into the system message: saved models would be refused the next day."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}" + CHAT_TEMPLATE
    today = Prompt(tokenizer, SMALL)

    class Tomorrow(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime(2031, 5, 17, tzinfo=tz)

    from transformers.utils import chat_template_utils

    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow, raising=False)
    assert Prompt(tokenizer, SMALL).hash == today.hash


def test_a_model_that_may_think_aloud_is_asked_to_answer_at_once() -> None:
    tokenizer = tiny_tokenizer()
    thought = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>{% endif %}"
    tokenizer.chat_template = CHAT_TEMPLATE + thought
    silent = Prompt(tokenizer, SMALL)
    tail = tokenizer.decode(silent.parts.query_tail)
    assert tail.index("assistant") < tail.index("<think>") < tail.index("</think>")
    assert Prompt(tiny_tokenizer(), SMALL).hash == prompt("chat").hash != silent.hash


def test_long_texts_are_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of gigabytes pasted as a query costs what its two ends cost."""
    p = prompt("chat")
    seen: list[int] = []
    plain: Callable[[str], list[int]] = p._text_ids
    monkeypatch.setattr(p, "_text_ids", lambda text: seen.append(len(text)) or plain(text))
    p.document_ids("a" * 10_000_000)
    p.query_ids("a" * 10_000_000)
    assert max(seen) < 2000
