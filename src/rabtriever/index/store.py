"""The Lance table that holds an index's documents and vectors, and what makes its commits last.

Lance commits atomically and keeps every version that a reader holds, but leaves the flushing to the operating system;
here every commit is flushed to the disk before it counts as done. (Should the power fail between the two, that last
commit may be torn, and the version before it is whole.)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.errors import DataError, InputError, RabtrieverError
from rabtriever.index.filter import Filter, value_types
from rabtriever.index.records import label_hash
from rabtriever.index.scan import largest_norm

if TYPE_CHECKING:
    from lancedb.table import LanceTable
    from numpy.typing import NDArray

__all__ = ["Row", "Snapshot", "Store"]

_TABLE = "documents"
_LOAD_ROWS = 1 << 15
_OPEN_TO_FLUSH = os.O_RDWR if os.name == "nt" else os.O_RDONLY

Row = tuple[Document, str, str]
"""A document, its metadata as JSON and the hash of its content."""


class Store:
    """The table of one index folder.

    Args:
        folder: The index folder.
        dimension: Width of the vectors.
    """

    def __init__(self, folder: Path, dimension: int) -> None:
        self.folder = folder
        self.dimension = dimension
        self._flushed: set[str] = set()
        with _lance_errors("open", folder):
            if not (folder / f"{_TABLE}.lance").is_dir():
                raise DataError(f"{folder}: the table {_TABLE}.lance is missing", hint="restore it, or index again")
            self._table = self._handle()
        width = getattr(self._table.schema.field("vector").type, "list_size", None)
        if width != dimension:
            raise DataError(f"{folder}: the table's vectors have {width} numbers, index.json says {dimension}")

    @classmethod
    def create(cls, folder: Path, dimension: int) -> Store:
        """Make an empty table in an existing folder."""
        import lancedb

        with _lance_errors("create", folder):
            table = lancedb.connect(folder.resolve()).create_table(_TABLE, schema=_schema(dimension))
            # Without it, two processes that add the same new id both succeed, and the id is there twice.
            cast("LanceTable", table).set_unenforced_primary_key("id")
        store = cls(folder, dimension)
        store.flush()
        return store

    def _handle(self) -> LanceTable:
        import lancedb

        return cast("LanceTable", lancedb.connect(self.folder.resolve()).open_table(_TABLE))

    def snapshot(self) -> Snapshot:
        """The table as it is now, whatever is written later."""
        with _lance_errors("read", self.folder):
            table = self._handle()
            table.checkout(table.version)
        return Snapshot(self.folder, table, self.dimension)

    def known(self) -> dict[str, tuple[str, int]]:
        """The latest version's ids, each with the hash of its content and the ``label_hash`` of the rest."""
        found: dict[str, tuple[str, int]] = {}
        with _lance_errors("read", self.folder):
            self._table.checkout_latest()  # type: ignore[no-untyped-call]
            query = self._table.search().select(["id", "title", "metadata", "text_hash"])
            for batch in query.to_batches(_LOAD_ROWS):
                ids, *columns = (column.to_pylist() for column in batch.columns)
                for name, title, metadata, digest in zip(ids, *columns, strict=True):
                    found[name] = digest, label_hash(title, metadata)
        return found

    def vectors(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """The latest vectors of stored ids, in the order of ``ids``, ``(n, k)``."""
        if not ids:
            return np.empty((0, self.dimension), np.float32)
        with _lance_errors("read", self.folder):
            self._table.checkout_latest()  # type: ignore[no-untyped-call]
            table = _with_ids(self._table, ids, ["id", "vector"])
        place = {name: row for row, name in enumerate(table["id"].to_pylist())}
        if len(place) < len(ids):
            raise RabtrieverError(
                f"{self.folder}: another process deletes documents", hint="run it again", code="storage"
            )
        return _matrix(table["vector"].combine_chunks(), self.dimension)[[place[name] for name in ids]]

    def upsert(self, rows: Sequence[Row], vectors: NDArray[np.float32]) -> None:
        """Store rows whose ids differ, replacing those with the same ids, in one commit that lasts."""
        columns = [
            pa.array([document.id for document, _, _ in rows]),
            pa.array([document.title for document, _, _ in rows]),
            pa.array([document.text for document, _, _ in rows], type=pa.large_string()),
            pa.array([metadata for _, metadata, _ in rows], type=pa.large_string()),
            pa.array([text_hash for _, _, text_hash in rows]),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.dimension),
        ]
        with _lance_errors("write to", self.folder):
            batch = pa.table(columns, schema=_schema(self.dimension))
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(batch)
        self.flush()

    def delete(self, ids: Sequence[str]) -> int:
        """Delete the rows with these ids in one commit that lasts; return how many there were."""
        with _lance_errors("write to", self.folder):
            self._table.checkout_latest()  # type: ignore[no-untyped-call]
            there = int(self._table.count_rows(_is_one_of(ids)))
            if there:  # else it would commit a version equal to the last
                self._table.delete(_is_one_of(ids))
        self.flush()
        return there

    def flush(self) -> None:
        """Flush to the disk what was written since the last time: new files, and the folders that list them."""
        with _lance_errors("write to", self.folder):
            for folder, _, names in os.walk(self.folder):
                new = [path for name in names if (path := f"{folder}{os.sep}{name}") not in self._flushed]
                for path in new:
                    with suppress(FileNotFoundError):  # cleaned up by another process
                        _flush(path)
                if new:
                    with suppress(PermissionError):  # Windows opens no folders
                        _flush(folder)
                self._flushed.update(new)


class Snapshot:
    """One version of the table: immutable, and safe to read while others write."""

    def __init__(self, folder: Path, table: LanceTable, dimension: int) -> None:
        self.folder, self.dimension, self._table = folder, dimension, table
        with _lance_errors("read", folder):
            self.version = int(table.version)
            self.count = int(table.count_rows())

    def get(self, ids: Sequence[str]) -> dict[str, Document]:
        """The documents with these ids, as far as they are there."""
        with _lance_errors("read", self.folder):
            table = _with_ids(self._table, ids, ["id", "title", "text", "metadata"])
        return {document.id: document for document in _documents(table)}

    def documents(self, rows: Sequence[int]) -> dict[int, Document]:
        """The documents in these rows of :attr:`vectors`."""
        numbers = {int(self._columns["_rowid"][row]): row for row in rows}
        with _lance_errors("read", self.folder):
            query = self._table.take_row_ids(list(numbers)).with_row_id()
            table = query.select(["id", "title", "text", "metadata"]).to_arrow()
        found = dict(zip(table["_rowid"].to_pylist(), _documents(table), strict=True))
        return {row: found[number] for number, row in numbers.items()}

    @property
    def ids(self) -> list[str]:
        """The id of each row."""
        names: list[str] = self._columns["id"]
        return names

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The vectors, ``(n, k)``, contiguous."""
        vectors: NDArray[np.float32] = self._columns["vector"]
        return vectors

    @cached_property
    def norm(self) -> float:
        """The largest norm of a vector.

        Raises:
            DataError: A stored vector is damaged.
        """
        norm = largest_norm(self.vectors)
        if not np.isfinite(norm):
            bad = self.ids[int(np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))[0])]
            raise DataError(f"{self.folder}: the vector of document {show(bad)} is damaged", hint="index it again")
        return norm

    def rows(self, condition: Filter) -> NDArray[np.intp]:
        """The rows whose metadata meets a condition.

        Raises:
            InputError: The condition names a field or a type of value that no document has.
        """
        records, types = self._metadata
        condition.check(types)
        return np.flatnonzero([condition.matches(record) for record in records])

    @cached_property
    def _columns(self) -> dict[str, Any]:
        """Ids, row numbers, metadata and vectors, read in one pass so that their rows correspond."""
        vectors = np.empty((self.count, self.dimension), np.float32)
        numbers = np.empty(self.count, np.uint64)
        ids: list[str] = []
        metadata: list[Any] = []
        with _lance_errors("read", self.folder):
            query = self._table.search().select(["id", "metadata", "vector"]).with_row_id(True)
            for batch in query.to_batches(_LOAD_ROWS):
                span = slice(len(ids), len(ids) + batch.num_rows)
                vectors[span] = _matrix(batch.column("vector"), self.dimension)
                numbers[span] = batch.column("_rowid").to_numpy()
                ids.extend(batch.column("id").to_pylist())
                metadata.append(batch.column("metadata"))
        if len(ids) != self.count:
            raise DataError(f"{self.folder}: read {len(ids)} of {self.count} documents", hint="the table is damaged")
        return {"id": ids, "_rowid": numbers, "metadata": metadata, "vector": vectors}

    @cached_property
    def _metadata(self) -> tuple[list[dict[str, Any]], dict[str, set[str]]]:
        records = [json.loads(text) for part in self._columns["metadata"] for text in part.to_pylist()]
        types: dict[str, set[str]] = {}
        for record in records:
            for name, found in value_types(record).items():
                types.setdefault(name, set()).update(found)
        return records, types


def _schema(dimension: int) -> pa.Schema:
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("title", pa.string(), nullable=False),
            pa.field("text", pa.large_string(), nullable=False),
            pa.field("metadata", pa.large_string(), nullable=False),
            pa.field("text_hash", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False),
        ]
    )


def _with_ids(table: LanceTable, ids: Sequence[str], columns: list[str]) -> pa.Table:
    return table.search().where(_is_one_of(ids)).select(columns).to_arrow()


def _is_one_of(ids: Sequence[str]) -> str:
    # Without ids that have no UTF-8 form: none of them is stored.
    known = [name for name in ids if name == name.encode("utf-8", "replace").decode("utf-8")]
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in known)
    return f"id IN ({quoted})" if known else "false"


def _matrix(column: Any, dimension: int) -> NDArray[np.float32]:
    matrix: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(column), dimension)
    return matrix


def _documents(table: pa.Table) -> list[Document]:
    rows = table.select(["id", "text", "title", "metadata"]).to_pylist()
    return [Document(row["id"], row["text"], row["title"], json.loads(row["metadata"])) for row in rows]


def _flush(path: str) -> None:
    descriptor = os.open(path, _OPEN_TO_FLUSH)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _lance_errors(verb: str, folder: Path) -> Iterator[None]:
    """Turn what the storage raises (``RuntimeError`` for nearly everything) into one sentence."""
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        # Without the places in Lance's own source that it appends.
        reason = re.sub(r",? ?(?:at )?\S+\.rs:\d+(?::\d+)?", "", str(error)).partition("\n")[0][:300]
        message, kept = f"cannot {verb} the index {folder}: {reason}", "what was stored before is kept"
        if re.search(r"os error (27|28|122)\b|No space left|File too large|quota exceeded", reason, re.IGNORECASE):
            raise InputError(message, hint=f"make room and run it again; {kept}", code="disk_full") from error
        if isinstance(error, PermissionError) or "Permission denied" in reason or "Read-only file system" in reason:
            raise InputError(message, hint="mend the folder's permissions, or use another folder") from error
        if verb in ("open", "read"):
            raise DataError(message, hint="its files are damaged or gone: restore them, or index again") from error
        raise RabtrieverError(message, hint=kept, code="storage") from error
