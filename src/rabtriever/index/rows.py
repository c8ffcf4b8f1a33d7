"""One row of the table: a document, its vectors, and the checksums by which damage is found.

A checksum belongs to a row and not to a batch, so that it stays true when rows of a batch are replaced, deleted or
compacted. There are two: ``vector_crc`` is verified whenever vectors are loaded, ``text_crc`` whenever a document is
handed out; so neither a flipped bit in a vector nor one in a text is passed on silently.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DOCUMENT_COLUMNS",
    "STAMP_ROWS",
    "VECTOR_COLUMNS",
    "Found",
    "Numbers",
    "Row",
    "check_range",
    "documents_of",
    "found_of",
    "schema",
    "text_crc",
    "to_table",
    "vector_crc",
]

DOCUMENT_COLUMNS = ["id", "title", "text", "metadata", "text_hash", "spans", "text_crc"]
VECTOR_COLUMNS = ["id", "stamp", "metadata", "vector", "spans", "passages", "vector_crc"]
STAMP_ROWS = 1 << 24
"""Rows of one commit at most. A stamp is made of the commit's version (24 bits), 16 random bits (should a version's
number ever come again, after a repair) and the row's number in the commit (24 bits); so stamps grow with time."""

Span = tuple[int, int]
Numbers = Literal["float32", "float16"]
"""How the numbers of a vector are stored. They are widened to float32 as they are read, and scored so."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is stored of a document.

    Attributes:
        document: The document.
        metadata: Its metadata as JSON.
        text_hash: The hash of what the model reads of it.
        vectors: One vector for each passage, ``(p, k)`` with ``p >= 1``.
        spans: Start and end of each passage in the document's content; empty where the whole is one.
    """

    document: Document
    metadata: str
    text_hash: str
    vectors: NDArray[np.float32]
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A document as it was stored, and where its passages are."""

    document: Document
    text_hash: str
    spans: tuple[Span, ...]


def schema(dimension: int, dtype: Numbers = "float32") -> pa.Schema:
    """The table's columns; ``passages`` holds the vectors of all passages but the first, one after the other."""
    number = pa.float16() if dtype == "float16" else pa.float32()
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("stamp", pa.uint64(), nullable=False),  # never used twice: the row's identity across versions
            pa.field("title", pa.string(), nullable=False),
            pa.field("text", pa.large_string(), nullable=False),
            pa.field("metadata", pa.large_string(), nullable=False),
            pa.field("text_hash", pa.string(), nullable=False),
            pa.field("text_crc", pa.uint32(), nullable=False),
            pa.field("vector", pa.list_(number, dimension), nullable=False),
            pa.field("spans", pa.list_(pa.int64()), nullable=False),
            pa.field("passages", pa.large_list(number), nullable=False),
            pa.field("vector_crc", pa.uint32(), nullable=False),
        ]
    )


def to_table(rows: Sequence[Row], version: int, dimension: int, dtype: Numbers = "float32") -> pa.Table:
    """Rows as Arrow, stamped with the version that their commit will make."""
    documents = [row.document for row in rows]
    base = (version << 40) + (secrets.randbits(16) << 24)
    flat_spans = [[place for span in row.spans for place in span] for row in rows]
    first = np.stack([row.vectors[0] for row in rows]).astype(dtype)
    more = [row.vectors[1:].ravel().astype(dtype) for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in more])])
    columns = {
        "id": pa.array([document.id for document in documents], pa.string()),
        "stamp": pa.array(np.arange(len(rows), dtype=np.uint64) + np.uint64(base)),
        "title": pa.array([document.title for document in documents], pa.string()),
        "text": pa.array([document.text for document in documents], pa.large_string()),
        "metadata": pa.array([row.metadata for row in rows], pa.large_string()),
        "text_hash": pa.array([row.text_hash for row in rows], pa.string()),
        "text_crc": pa.array([text_crc(row.document, row.metadata, row.text_hash) for row in rows], pa.uint32()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(first.ravel()), dimension),
        "spans": pa.array(flat_spans, pa.list_(pa.int64())),
        "passages": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(more))),
        "vector_crc": pa.array(
            [
                vector_crc(row.document.id, vector, part, spans)
                for row, vector, part, spans in zip(rows, first, more, flat_spans, strict=True)
            ],
            pa.uint32(),
        ),
    }
    wanted = schema(dimension, dtype)
    return pa.table([columns[name] for name in wanted.names], schema=wanted)


def text_crc(document: Document, metadata: str, text_hash: str) -> int:
    r"""The checksum of everything but the vectors.

    Example:
        >>> text_crc(Document("d1", "a"), "{}", "") != text_crc(Document("d1", "b"), "{}", "")
        True
    """
    parts = (document.id, document.title, document.text, metadata, text_hash)
    return zlib.crc32("\0".join(f"{len(part)} {part}" for part in parts).encode("utf-8", "surrogatepass"))


def vector_crc(id: str, vector: NDArray[np.floating], passages: NDArray[np.floating], spans: Sequence[int] = ()) -> int:
    """The checksum of a row's vectors, whose they are, and which passages they stand for.

    Args:
        id: The document's id.
        vector: The first vector, ``(k,)``, as it is stored.
        passages: The others, one after the other.
        spans: Starts and ends.

    Example:
        >>> one = np.ones(3, np.float32)
        >>> vector_crc("d1", one, one[:0]) != vector_crc("d2", one, one[:0])
        True
    """
    crc = zlib.crc32(vector.data if vector.flags.c_contiguous else vector.tobytes(), zlib.crc32(id.encode("utf-8")))
    if len(spans):
        crc = zlib.crc32(np.asarray(spans, np.int64).tobytes(), zlib.crc32(passages.tobytes(), crc))
    return crc


def check_range(vectors: NDArray[np.float32], names: Sequence[str], dtype: Numbers) -> None:
    """Refuse vectors ``(n, k)`` that hold numbers which ``dtype`` does not reach.

    Raises:
        DataError: A number is too large (code ``not_finite``).

    Example:
        >>> check_range(np.ones((1, 2), np.float32), ["document 'd1'"], "float16")
    """
    largest = float(np.finfo(dtype).max)
    bad = np.flatnonzero((np.abs(vectors) > largest).any(axis=1))
    if bad.size:
        raise DataError(
            f"the vector of {names[bad[0]]} holds numbers beyond {largest:,.0f}, the largest of {dtype}",
            hint="make the index with dtype float32",
            code="not_finite",
        )


def documents_of(table: pa.Table, folder: Path) -> list[Found]:
    """The documents of rows read with :data:`DOCUMENT_COLUMNS`.

    Raises:
        DataError: A row is not as it was written; the message names the document.
    """
    found = []
    for row in table.select(DOCUMENT_COLUMNS).to_pylist():
        one = found_of(row)
        if one is None:
            raise damaged(folder, row["id"], "text or metadata")
        found.append(one)
    return found


def found_of(row: dict[str, Any]) -> Found | None:
    """One row with :data:`DOCUMENT_COLUMNS`; None where it is not as it was written."""
    document = _document(row)
    if document is None or text_crc(document, row["metadata"], row["text_hash"]) != row["text_crc"]:
        return None
    spans = row["spans"]
    return Found(document, row["text_hash"], tuple(zip(spans[::2], spans[1::2], strict=True)))


def damaged(folder: Path, id: str, what: str) -> DataError:
    """The error for a document that is not as it was written."""
    return DataError(
        f"{folder}: the {what} of the document {show(id)} is damaged on the disk",
        hint="`rabtriever repair INDEX` takes damaged documents out; then index them again",
        code="damaged",
    )


def _document(row: dict[str, Any]) -> Document | None:
    try:
        return Document(row["id"], row["text"], row["title"], json.loads(row["metadata"]))
    except ValueError:
        return None
