"""What is stored in an engine: one point for each vector, that is, for each document or passage of one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rabtriever.data.records import Document
from rabtriever.index.vectors import Vectors

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Found", "Point", "key", "model_name", "points_of"]

_NAMESPACE = uuid.UUID("0d1f6c1e-7a53-5c55-9d4e-3a1f0c9a52b7")
_LONG = 2**63


@dataclass(frozen=True, slots=True)
class Point:
    """One vector with what belongs to it.

    Attributes:
        key: Its name in the engine, a UUID: the same for the same document and passage at all times.
        stamp: The document as it was written: another one whenever it is written anew.
        model: Whose vector it is: the beginning of the fingerprint of how the model reads documents.
        id: The document's id.
        passage: Which passage of the document, from 0.
        span: Start and end of the passage in the document's content; None where the document is one whole.
        title: The document's title.
        text: The document's text; of a document of several passages, this passage of its content.
        metadata: The document's metadata.
        vector: The vector, ``(k,)``.
        cut: Whether the text was too long for the engine, and ends early.
    """

    key: str
    stamp: str
    model: str
    id: str
    passage: int
    span: tuple[int, int] | None
    title: str
    text: str
    metadata: Mapping[str, Any]
    vector: NDArray[np.float32]
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A point that an engine found: the attributes are those of :class:`Point`."""

    id: str
    span: tuple[int, int] | None
    title: str
    text: str
    metadata: Mapping[str, Any]
    vector: NDArray[np.float32]

    @classmethod
    def of(cls, stored: Mapping[str, Any], vector: Sequence[float]) -> Found:
        """A point as engines give it back: by the names of the attributes, with a span of no numbers for none."""
        span = stored.get("span")
        return cls(
            stored["id"],
            (span[0], span[1]) if span else None,
            stored["title"],
            stored["text"],
            stored["metadata"],
            np.array(vector, np.float32),
        )


def key(id: str, passage: int) -> str:
    """The name of a passage of a document in every engine.

    Example:
        >>> key("d1", 0) == key("d1", 0) != key("d1", 1)
        True
    """
    return str(uuid.uuid5(_NAMESPACE, f"{passage} {id}"))


def model_name(fingerprint: str) -> str:
    """What points say about the model of their vectors.

    Example:
        >>> model_name("0123456789abcdef0123")
        '0123456789abcdef'
    """
    return fingerprint[:16]


def points_of(batch: Vectors, model: str, longest_text: int | None = None) -> Iterator[Point]:
    """The points of some documents.

    Args:
        batch: The documents with their vectors.
        model: As :func:`model_name` gives it.
        longest_text: Bytes of UTF-8 that the engine can hold of a text; longer ones are cut.
    """
    for owner, passage, vector in zip(batch.owner.tolist(), batch.passages.tolist(), batch.vectors, strict=True):
        document, spans = batch.documents[owner], batch.spans[owner]
        span = spans[passage] if spans else None
        text, cut = _shortened(_plain(_text(document, span)), longest_text)
        yield Point(
            key(document.id, passage),
            f"{int(batch.stamps[owner]):016x}",
            model,
            document.id,
            passage,
            span,
            _plain(document.title),
            text,
            _plain(dict(document.metadata)),
            vector,
            cut,
        )


def _text(document: Document, span: tuple[int, int] | None) -> str:
    return document.text if span is None else document.content[slice(*span)]


def _plain(value: Any) -> Any:
    """The same without what engines refuse: NUL and lone surrogates, and whole numbers of more than 64 bits."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_plain(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not -_LONG <= value < _LONG:
        return str(value)
    return value


def _shortened(text: str, longest: int | None) -> tuple[str, bool]:
    if longest is None or 4 * len(text) <= longest or len(data := text.encode("utf-8")) <= longest:
        return text, False
    return data[:longest].decode("utf-8", "ignore"), True
