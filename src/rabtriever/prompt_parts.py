"""The prompt as ids: what stands around a text, and what of a long text is kept. It needs no tokenizer library."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

__all__ = ["PromptParts"]

_CHARACTERS_PER_TOKEN = 32
"""No tokenizer in use packs more characters of prose than this into a token: bounds the work on enormous texts."""

Encode = Callable[[str], list[int]]
"""Turns text into ids, every character of it as text."""


class PromptParts(BaseModel):
    """A prompt's constant ids, and the limits of the texts between them.

    Args:
        document_head: Ids before a document.
        document_space: What of the template belongs to the document's first word: a space, or nothing.
        document_tail: Ids after it.
        query_head: Ids before a query.
        query_space: As for the document.
        query_tail: Ids after it, up to the answer.
        max_document_tokens: Longer documents lose their end.
        max_query_tokens: Longer queries lose their middle.
        query_start: Share of a longer query's tokens kept from its start.

    Example:
        >>> parts = PromptParts(document_head=[1], document_space="", document_tail=[2], query_head=[3], query_space="",
        ...     query_tail=[4], max_document_tokens=2, max_query_tokens=2, query_start=0.5)
        >>> parts.query_ids("abc", lambda text: [ord(letter) for letter in text])
        [3, 97, 99, 4]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    document_head: list[int]
    document_space: str
    document_tail: list[int]
    query_head: list[int]
    query_space: str
    query_tail: list[int]
    max_document_tokens: int
    max_query_tokens: int
    query_start: float

    def document_ids(self, text: str, encode: Encode) -> list[int]:
        """Ids of the document part, ``(L_D,)``: of the text at most ``max_document_tokens``, from its start."""
        limit = self.max_document_tokens
        ids = encode(_valid(self.document_space + text[: limit * _CHARACTERS_PER_TOKEN])) if text else []
        return self.document_head + ids[:limit] + self.document_tail

    def query_ids(self, text: str, encode: Encode) -> list[int]:
        """Ids of the query part, ``(L_Q,)``: of the text at most ``max_query_tokens``, by default from both ends."""
        limit = self.max_query_tokens
        span = limit * _CHARACTERS_PER_TOKEN
        if len(text) > 2 * span:
            text = text[:span] + text[-span:]
        ids = encode(_valid(self.query_space + text)) if text else []
        if len(ids) > limit:
            start = int(limit * self.query_start)
            ids = ids[:start] + ids[len(ids) - (limit - start) :]
        return self.query_head + ids + self.query_tail

    @property
    def longest(self) -> int:
        """The most tokens that a document and a query can have together."""
        constant = self.document_head + self.document_tail + self.query_head + self.query_tail
        return len(constant) + self.max_document_tokens + self.max_query_tokens


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates have no UTF-8 form
