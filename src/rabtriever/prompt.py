"""The instruction of Eq. 7, the border between document and query, and the two answers.

A text travels as ``head ids + text ids + tail ids``. The three are tokenised apart, for three reasons: the border
between document and query never moves; truncation can only ever shorten the user's text, never the instruction; and
what users write is read as text, even where it spells a control token such as ``<|im_end|>``.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rabtriever.errors import InputError
from rabtriever.prompt_parts import PromptParts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Prompt", "PromptConfig"]

_INSTRUCTION = (
    "Can Query be appropriately responded with Document? If the answer is true, choose <T>; otherwise, choose <F>."
)
_MARK = "\N{OBJECT REPLACEMENT CHARACTER}"
_FIXED_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}"
"""Some chat templates write today's date into the system message; a model must be asked tomorrow what it was today."""


class PromptConfig(BaseModel):
    r"""The words around a document and a query (Eq. 7), and how long either may be.

    Example:
        >>> PromptConfig(max_query_tokens=64).document
        'Document: {text}\n'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    document: str = Field("Document: {text}\n", description="The document part; {text} stands for the document.")
    query: str = Field(f"Query: {{text}}\n{_INSTRUCTION}", description="The query part with the instruction.")
    true: str = Field("<T>", min_length=1, description="The answer that means relevant.")
    false: str = Field("<F>", min_length=1, description="The answer that means not relevant.")
    max_document_tokens: int = Field(512, ge=1, description="Longer documents lose their end.")
    max_query_tokens: int = Field(256, ge=2, description="Longer queries lose their middle.")
    query_start: float = Field(
        0.5, ge=0.0, le=1.0, description="Share of a longer query's tokens kept from its start; 0 keeps a chat's end."
    )
    chat: bool = Field(
        True,
        description="Whether a chat model's own frame goes around the two parts; without it they are read as plain "
        "text, and the answer follows the query part directly.",
    )

    @field_validator("document", "query")
    @classmethod
    def _one_text(cls, value: str) -> str:
        if value.count("{text}") != 1:
            raise ValueError(f"expected exactly one {{text}} in the template, got {value!r}")
        return value


class Prompt:
    """Turns documents and queries into token ids for one tokenizer.

    With a chat tokenizer the template's opening goes before the document and its generation cue after the query.

    Args:
        tokenizer: A Hugging Face tokenizer.
        config: The templates and limits.

    Attributes:
        parts: The constant ids and the limits.
        true_id: The first token by which the answer ``<T>`` differs from ``<F>``, in context.
        false_id: The same for ``<F>``.
        hash: Identifies templates, limits and all constant ids, hence what the model reads around a text.

    Raises:
        InputError: If the two answers cannot be told apart by one token, or the chat template hides the message.

    Example:
        >>> prompt = Prompt(tokenizer, PromptConfig())                                 # doctest: +SKIP
        >>> ids = prompt.document_ids("find a sponge") + prompt.query_ids("I spilled my coke")  # doctest: +SKIP
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: PromptConfig | None = None) -> None:
        self.tokenizer = tokenizer
        self.config = config or PromptConfig()
        if self.config.chat:
            opening, closing, control = _chat_frame(tokenizer)
            _protect(tokenizer, opening + closing)
        else:
            opening, closing, control = "", "", _opening_ids(tokenizer)
            _protect(tokenizer, str(tokenizer.chat_template or ""))
        document_head, document_tail = self.config.document.split("{text}")
        query_head, query_tail = self.config.query.split("{text}")
        # A space before the text belongs to the text, since most tokenizers join it to the word that follows.
        document_space, query_space = _trailing_space(document_head), _trailing_space(query_head)
        tail, self.true_id, self.false_id = self._answer_ids(query_tail + closing)
        self.parts = PromptParts(
            document_head=control + self._template_ids(opening + document_head.removesuffix(document_space)),
            document_space=document_space,
            document_tail=self._template_ids(document_tail),
            query_head=self._template_ids(query_head.removesuffix(query_space)),
            query_space=query_space,
            query_tail=tail,
            max_document_tokens=self.config.max_document_tokens,
            max_query_tokens=self.config.max_query_tokens,
            query_start=self.config.query_start,
        )
        self.hash = self._hash()

    def document_ids(self, text: str) -> list[int]:
        """Ids of the document part, ``(L_D,)``: of the text at most ``max_document_tokens``, from its start."""
        return self.parts.document_ids(text, self._text_ids)

    def query_ids(self, text: str) -> list[int]:
        """Ids of the query part, ``(L_Q,)``: of the text at most ``max_query_tokens``, by default from both ends."""
        return self.parts.query_ids(text, self._text_ids)

    @property
    def longest(self) -> int:
        """The most tokens that a document and a query can have together."""
        return self.parts.longest

    def _text_ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
        return list(ids)

    def _template_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _answer_ids(self, tail: str) -> tuple[list[int], int, int]:
        """The query tail with what the answers share, and the first id by which they differ."""
        true = self._template_ids(tail + self.config.true)
        false = self._template_ids(tail + self.config.false)
        shared = 0
        while shared < min(len(true), len(false)) and true[shared] == false[shared]:
            shared += 1
        if shared == min(len(true), len(false)):
            raise InputError(
                f"this tokenizer cannot tell the answers {self.config.true!r} and {self.config.false!r} apart: "
                f"their ids in context are {true[-4:]} and {false[-4:]}",
                hint="choose other answers, for example prompt.true=yes prompt.false=no",
            )
        return true[:shared], true[shared], false[shared]

    def _hash(self) -> str:
        config, parts = self.config.model_dump(), self.parts
        for younger in ("query_start", "chat"):  # than the first models, whose hash must stay what it was
            if config[younger] == PromptConfig.model_fields[younger].default:
                del config[younger]
        state: dict[str, Any] = {
            "config": config,
            "ids": [parts.document_head, parts.document_tail, parts.query_head, parts.query_tail],
            "answers": [self.true_id, self.false_id],
        }
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]


def _chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, list[int]]:
    """What the chat template puts before and after a user's message, and the ids that open a plain text."""
    if tokenizer.chat_template:
        message = [{"role": "user", "content": _MARK}]
        template = _FIXED_DATE + tokenizer.get_chat_template()
        # A model that may think aloud (Qwen 3) is asked to answer at once; other templates do not know the word.
        rendered = tokenizer.apply_chat_template(
            message, chat_template=template, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        rendered = str(rendered)
        if rendered.count(_MARK) != 1:
            raise InputError(
                f"the tokenizer's chat template does not show a user's message exactly once: {rendered!r}",
                hint="use a model with another chat template, or leave the frame out with prompt.chat=false",
            )
        opening, _, closing = rendered.partition(_MARK)
        return opening, closing, []
    return "", "\n", _opening_ids(tokenizer)


def _opening_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special ids that a tokenizer puts before a plain text."""
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start]
    return []


def _protect(tokenizer: PreTrainedTokenizerBase, frame: str) -> None:
    """Mark the template's control tokens as special, so that the same characters in a user's text stay text."""
    plain = [
        t for t in tokenizer.added_tokens_decoder.values() if not t.special and t.content in frame and t.content.strip()
    ]
    if plain:
        from tokenizers import AddedToken

        tokens = [AddedToken(t.content, special=True, normalized=False) for t in plain]
        tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)


def _trailing_space(text: str) -> str:
    return " " if text.endswith(" ") else ""
