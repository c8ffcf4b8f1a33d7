"""What goes into an index and what comes out of it."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from reprlib import repr as brief
from typing import Any, Literal, SupportsIndex

from rabtriever.data.lines import show
from rabtriever.data.records import Document, check_id, document_from
from rabtriever.errors import DataError, InputError

__all__ = [
    "Counts",
    "DocumentLike",
    "Hit",
    "Version",
    "check_documents",
    "check_ids",
    "check_share",
    "sigmoid",
    "text_hash",
    "whole_number",
    "write_metadata",
]

DocumentLike = Document | Mapping[str, Any] | tuple[str, str] | str


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found.

    Attributes:
        id: The document's id.
        score: Log-odds that the document answers the query.
        probability: The same as a probability, ``sigmoid(score)``.
        text: The document's text.
        title: Its title, or an empty string.
        metadata: Its metadata.
        stage: Whose score this is. Scores of the two stages are not comparable with each other.
        span: Start and end, in the document's content, of its best passage; None where it is read whole.
    """

    id: str
    score: float
    probability: float
    text: str
    title: str
    metadata: Mapping[str, Any]
    stage: Literal["student", "teacher"] = "student"
    span: tuple[int, int] | None = None

    @classmethod
    def of(cls, document: Document, score: float) -> Hit:
        """A document with the student's score."""
        return cls(document.id, score, sigmoid(score), document.text, document.title, document.metadata)

    @property
    def content(self) -> str:
        r"""What the model reads of the whole document, its title included.

        Example:
            >>> Hit.of(Document("s2", "Put the feeling into words.", title="Reflection"), 0.0).content
            'Reflection\nPut the feeling into words.'
        """
        return Document(self.id, self.text, self.title).content

    @property
    def passage(self) -> str:
        """What the model read for the score: the best passage, or the whole document."""
        return self.content if self.span is None else self.content[slice(*self.span)]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the documents given to :meth:`rabtriever.Index.add`.

    Attributes:
        added: Documents whose id was new.
        updated: Documents whose id was there with another text, title or metadata.
        unchanged: Documents that were there already.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.added + other.added, self.updated + other.updated, self.unchanged + other.unchanged)


@dataclass(frozen=True, slots=True)
class Version:
    """One commit of an index.

    Attributes:
        number: Its number, by which :meth:`rabtriever.Index.restore` finds it.
        time: When it was written, by the writer's clock.
    """

    number: int
    time: datetime


def sigmoid(log_odds: float) -> float:
    """The probability that log-odds stand for, without overflow.

    Example:
        >>> sigmoid(0.0), sigmoid(-1e6)
        (0.5, 0.0)
    """
    return 0.5 * (1.0 + math.tanh(0.5 * log_odds))


def text_hash(content: str) -> str:
    """The hash by which an unchanged text is recognised, 32 hexadecimal digits.

    Example:
        >>> text_hash("find a sponge") == text_hash("find a sponge ")
        False
    """
    return hashlib.sha256(content.encode("utf-8")).hexdigest()[:32]


def write_metadata(document: Document) -> str:
    """A document's metadata as one JSON object with sorted keys.

    Raises:
        DataError: If it holds something that JSON has no form for.

    Example:
        >>> write_metadata(Document("d1", "find a sponge", metadata={"room": "kitchen", "floor": 2}))
        '{"floor": 2, "room": "kitchen"}'
    """
    metadata = dict(document.metadata)
    odd = [key for key in metadata if not isinstance(key, str)]
    try:
        if odd:
            raise ValueError(f"the key {show(odd[0])} is not a string")
        return json.dumps(metadata, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"document {show(document.id)}: the metadata cannot be written as JSON: {error}",
            hint="use strings, finite numbers, true, false, null, and lists and objects of them",
        ) from None


def check_documents(documents: Iterable[DocumentLike]) -> Iterator[Document]:
    """Yield the documents one by one, each checked, with ids that differ.

    A text alone gets the hash of the text as its id: the same text is the same document wherever it stands. Lone
    surrogates, which cannot be stored as UTF-8, become question marks here as they do in prompts.

    Raises:
        DataError: A document is none of the accepted kinds, its id is empty, not printable, or has come before.

    Example:
        >>> [document.id for document in check_documents([("d1", "find a sponge"), {"_id": "d2", "text": "go"}])]
        ['d1', 'd2']
    """
    seen: dict[str, int] = {}
    for position, item in enumerate(documents, start=1):
        document = _clean(_document(item, f"document {position}"))
        first = seen.setdefault(document.id, position)
        if first != position:
            raise DataError(
                f"documents {first} and {position} have the same id {show(document.id)}",
                hint="give each document an id of its own; batches before this one are stored",
            )
        yield document


def check_ids(ids: Iterable[str]) -> list[str]:
    """Return ids to look up as a list.

    Raises:
        InputError: One is not a string.

    Example:
        >>> check_ids(("d1", "d2"))
        ['d1', 'd2']
    """
    names = list(ids)
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"an id must be a string, found {brief(name)}")
    return names


def whole_number(name: str, value: SupportsIndex, least: int = 1) -> int:
    """Return an argument that counts something as an ``int``.

    Raises:
        InputError: It is no whole number, or below ``least``.

    Example:
        >>> whole_number("k", 10)
        10
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise InputError(f"{name} must be a whole number of at least {least}, found {brief(value)}")
    return number


def check_share(name: str, value: float) -> float:
    """Return an argument between 0 and 1.

    Raises:
        InputError: It is anything else.

    Example:
        >>> check_share("threshold", 0.5)
        0.5
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a number from 0 to 1, found {brief(value)}", hint="it is a probability")
    return float(value)


def _document(item: DocumentLike, place: str) -> Document:
    if isinstance(item, str):
        return Document(text_hash(item.encode("utf-8", "replace").decode("utf-8")), item)
    if isinstance(item, Mapping):
        return document_from(item, place)
    if isinstance(item, tuple) and len(item) == 2:
        return document_from({"id": item[0], "text": item[1]}, place)
    if isinstance(item, Document):
        check_id(item.id, place, "id")
        return item
    raise DataError(
        f"{place}: expected a Document, a mapping, a pair (id, text) or a text, found {type(item).__name__}",
        hint='pass for instance {"id": "d1", "text": "find a sponge"}',
    )


def _clean(document: Document) -> Document:
    title, text = (part.encode("utf-8", "replace").decode("utf-8") for part in (document.title, document.text))
    if (title, text) == (document.title, document.text):
        return document
    return Document(document.id, text, title, document.metadata)
