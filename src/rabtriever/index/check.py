"""Verify every row of an index against its checksums, and say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.errors import DataError
from rabtriever.index import cache
from rabtriever.index.description import Description
from rabtriever.index.rows import DOCUMENT_COLUMNS, VECTOR_COLUMNS, damaged, text_crc, vector_crc
from rabtriever.index.storage import lance_errors
from rabtriever.index.store import Store

if TYPE_CHECKING:
    from lancedb.table import LanceTable

__all__ = ["Problem", "Report", "check_index", "wrong_rows"]

Kind = Literal["vector", "text", "id", "duplicate", "table", "cache"]
_ROWS = 1 << 10
_LISTED = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        kind: What it is about.
        id: The document's id, where it is about one.
        message: One sentence.
        stamp: The row's identity, where it is about one.
    """

    kind: Kind
    id: str | None
    message: str
    stamp: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What :meth:`rabtriever.Index.check` found.

    Attributes:
        documents: Documents read.
        version: The version that was read.
        problems: What is wrong, the first thousand.
        cache: ``none``, ``ready``, ``exact`` (present, but its quantised scan is not used), or ``damaged``.

    Example:
        >>> Report(3, 2, (), "none").clean
        True
    """

    documents: int
    version: int
    problems: tuple[Problem, ...]
    cache: str

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check_index(store: Store, description: Description) -> Report:
    """Read the newest version from end to end: checksums, ids, vectors; then the cache.

    Returns:
        The report; a table that cannot be read is one problem of it.
    """
    problems: list[Problem] = []
    version = count = 0
    try:
        snapshot = store.snapshot()
        version, count = snapshot.version, snapshot.count
        for problem in wrong_rows(store, version):
            if len(problems) < _LISTED:
                problems.append(problem)
    except DataError as error:
        problems.append(Problem("table", None, error.message))
    state, wrong = cache.state(store.folder, description)
    problems += [Problem("cache", None, message) for message in wrong]
    return Report(count, version, tuple(problems), state)


def wrong_rows(store: Store, version: int) -> Iterator[Problem]:
    """Yield what is wrong with each row of a version.

    Memory: a thousand rows, and the ids of all.

    Raises:
        DataError: The rows cannot be read.
    """
    seen: dict[str, int] = {}
    columns = list(dict.fromkeys(DOCUMENT_COLUMNS + VECTOR_COLUMNS))
    read = 0
    with lance_errors("read", store.folder):
        table: LanceTable = store.at(version)
        expected = int(table.count_rows())
        for batch in table.search().select(columns).to_batches(_ROWS):
            read += batch.num_rows
            for row in range(batch.num_rows):
                yield from _wrong_row(store, batch.slice(row, 1), seen)
    if read != expected:
        raise DataError(f"{store.folder}: read {read} of {expected} documents", hint="restore the folder")


def _wrong_row(store: Store, row: pa.RecordBatch, seen: dict[str, int]) -> Iterator[Problem]:
    value = row.to_pylist()[0]
    id, stamp = value["id"], value["stamp"]
    if not id.strip():
        yield Problem("id", id, f"{store.folder}: a document has an empty id", stamp)
    if id in seen:
        older = min(stamp, seen[id])
        yield Problem("duplicate", id, f"{store.folder}: the id {show(id)} is there twice", older)
    seen[id] = max(stamp, seen.get(id, 0))
    document = Document(id, value["text"], value["title"])
    if text_crc(document, value["metadata"], value["text_hash"]) != value["text_crc"]:
        yield Problem("text", id, damaged(store.folder, id, "text or metadata").message, stamp)
    vector = np.asarray(value["vector"], store.dtype)
    passages = np.asarray(value["passages"], store.dtype)
    if vector_crc(id, vector, passages, value["spans"]) != value["vector_crc"]:
        yield Problem("vector", id, damaged(store.folder, id, "vector").message, stamp)
    elif not (np.isfinite(vector).all() and np.isfinite(passages).all()):
        yield Problem("vector", id, f"{store.folder}: the vector of {show(id)} holds NaN or an infinity", stamp)
    elif len(passages) != max(0, len(value["spans"]) // 2 - 1) * store.dimension:
        yield Problem("vector", id, f"{store.folder}: {show(id)} has vectors of another width", stamp)
