"""The stored vectors as they leave an index: a few documents at a time, each with all of its vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rabtriever.data.records import Document
from rabtriever.index.rows import DOCUMENT_COLUMNS, VECTOR_COLUMNS, Span, documents_of
from rabtriever.index.segment import read_batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ROW_COLUMNS", "Vectors", "vectors_of"]

ROW_COLUMNS = list(dict.fromkeys(DOCUMENT_COLUMNS + VECTOR_COLUMNS))


@dataclass(frozen=True, slots=True)
class Vectors:
    """Some documents of an index with their vectors; :meth:`rabtriever.Index.vectors` yields them.

    A document has one vector, or one for each of its passages, which stand together and in order.

    Attributes:
        documents: The documents, ``n`` of them.
        stamps: What tells each document as it was written from every other time it was written, ``(n,)``.
        spans: For each document, start and end of its passages in its content; empty where it is one whole.
        owner: Which of the documents each vector belongs to, ``(m,)``.
        passages: Which passage of that document it stands for, from 0, ``(m,)``.
        vectors: The vectors, ``(m, k)``.
    """

    documents: tuple[Document, ...]
    stamps: NDArray[np.uint64]
    spans: tuple[tuple[Span, ...], ...]
    owner: NDArray[np.intp]
    passages: NDArray[np.int32]
    vectors: NDArray[np.float32]

    @property
    def ids(self) -> list[str]:
        """The document's id for each vector."""
        return [self.documents[row].id for row in self.owner]


def vectors_of(batch: pa.RecordBatch, dimension: int, folder: Path) -> Vectors:
    """Verify and unpack rows with the columns :data:`ROW_COLUMNS` and ``_rowid``.

    Raises:
        DataError: A row is not as it was written.
    """
    read = read_batch(batch, dimension, folder)
    found = documents_of(pa.Table.from_batches([batch]), folder)
    count = len(found)
    owner = np.concatenate([np.arange(count), read.owner])
    order = np.argsort(owner, kind="stable")  # each document's first vector stands before its others
    owner = owner[order]
    passages = np.arange(len(owner)) - np.searchsorted(owner, owner)
    return Vectors(
        tuple(one.document for one in found),
        read.stamps,
        tuple(one.spans for one in found),
        owner,
        passages.astype(np.int32),
        np.concatenate([read.vectors, read.more])[order],
    )
