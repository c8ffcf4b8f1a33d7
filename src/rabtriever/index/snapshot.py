"""One version of the table: immutable, and safe to read while others write."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.errors import DataError
from rabtriever.index.filter import Filter
from rabtriever.index.hybrid import Lexical
from rabtriever.index.locks import Lease
from rabtriever.index.parts import Part, ascends, few
from rabtriever.index.rows import DOCUMENT_COLUMNS, VECTOR_COLUMNS, Found, documents_of
from rabtriever.index.segment import Batch, Segment, read_batch
from rabtriever.index.storage import lance_errors
from rabtriever.index.vectors import ROW_COLUMNS, Vectors, vectors_of

if TYPE_CHECKING:
    from lancedb.table import LanceTable
    from numpy.typing import NDArray

__all__ = ["Snapshot", "one_of"]

_LOAD_ROWS = 1 << 13
_TAKE_ROWS = 1 << 12
_STAMPS = 1 << 17


class Snapshot:
    """One version of the table.

    What a version needs for searching is read when first asked for, and rows that the former snapshot (or the cache)
    holds are not read again: a row never changes under its stamp.

    Args:
        folder: The index folder.
        table: The table, checked out at a version.
        dimension: Width of the vectors.
        lease: Keeps the version from being cleaned up as long as this object lives.
        known: Gives segments that may hold some of the rows, once they are needed.
    """

    def __init__(
        self, folder: Path, table: LanceTable, dimension: int, lease: Lease, known: Callable[[], Sequence[Segment]]
    ) -> None:
        self.folder, self.dimension, self._table, self._known = folder, dimension, table, known
        self._finalizer = weakref.finalize(self, lease.release)
        with lance_errors("read", folder):
            self.version = int(table.version)
            self.count = int(table.count_rows())

    def release(self) -> None:
        """Give the lease back; what is read afterwards may have been cleaned up."""
        self._finalizer()

    def get(self, ids: Sequence[str]) -> dict[str, Found]:
        """The documents with these ids, as far as they are there."""
        with lance_errors("read", self.folder):
            table = self._table.search().where(one_of(ids)).select(DOCUMENT_COLUMNS).to_arrow()
            return {found.document.id: found for found in documents_of(table, self.folder)}

    def stream(self, numbers: Sequence[int]) -> Iterator[Found]:
        """The documents with these row numbers, in their order, read a few thousand at a time.

        Raises:
            DataError: One is damaged.
        """
        for start in range(0, len(numbers), _TAKE_ROWS):
            chunk = numbers[start : start + _TAKE_ROWS]
            with lance_errors("read", self.folder):
                query = self._table.take_row_ids(sorted(set(chunk))).with_row_id()
                table = query.select(DOCUMENT_COLUMNS).to_arrow()
                read = documents_of(table, self.folder)
            found = dict(zip(table["_rowid"].to_pylist(), read, strict=True))
            if len(found) < len(set(chunk)):
                raise DataError(f"{self.folder}: rows of the table are missing", hint="refresh(), or check the index")
            yield from (found[number] for number in chunk)

    def found(self, places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Found]:
        """The documents at some places, each a part and a row of its segment: copies where the cache has them.

        Raises:
            DataError: One is damaged.
        """
        documents: dict[tuple[int, int], Found] = {}
        others: dict[tuple[int, int], int] = {}
        for number, row in dict.fromkeys(places):
            part = self.parts[number]
            copy = None if part.segment.texts is None else part.segment.texts.get(row)
            if copy is not None and copy.document.id == part.segment.ids[row]:
                documents[number, row] = copy
            else:
                others[number, row] = int(part.numbers[row])
        return documents | dict(zip(others, self.stream(list(others.values())), strict=True))

    def texts(self) -> Iterator[Document]:
        """All documents, in the order of the table.

        Raises:
            DataError: One is damaged.
        """
        with lance_errors("read", self.folder):
            batches = self._table.search().select(DOCUMENT_COLUMNS).to_batches(_TAKE_ROWS)
            for batch in batches:
                for found in documents_of(pa.Table.from_batches([batch]), self.folder):
                    yield found.document

    def ordered(self, condition: Filter | None = None) -> NDArray[np.uint64]:
        """The row numbers of the documents that meet a condition, in the order in which they were written."""
        masks = self.masks(condition)
        pairs = zip(self.parts, masks, strict=True)
        chosen = [part.rows if mask is None else np.flatnonzero(mask) for part, mask in pairs]
        stamps = np.concatenate([part.segment.stamps[rows] for part, rows in zip(self.parts, chosen, strict=True)])
        numbers = np.concatenate([part.numbers[rows] for part, rows in zip(self.parts, chosen, strict=True)])
        ordered: NDArray[np.uint64] = numbers[np.argsort(stamps)]
        return ordered

    def masks(self, condition: Filter | None) -> list[NDArray[np.bool_] | None]:
        """For each part which of its segment's documents take part; None where all do.

        Raises:
            InputError: The condition names a field or a type of value that no document has.
        """
        if condition is not None:
            types: dict[str, set[str]] = {}
            for part in self.parts:
                for name, there in part.segment.columns.types.items():
                    types.setdefault(name, set()).update(there)
            condition.check(types)
        masks: list[NDArray[np.bool_] | None] = []
        for part in self.parts:
            if part.whole and condition is None:
                masks.append(None)
                continue
            mask = np.zeros(len(part.segment), np.bool_)
            mask[part.rows] = True
            masks.append(mask if condition is None else mask & part.segment.columns.mask(condition))
        return masks

    @cached_property
    def lexical(self) -> Lexical:
        """BM25 over all documents."""
        places = {
            int(part.numbers[row]): (number, int(row)) for number, part in enumerate(self.parts) for row in part.rows
        }
        numbers = self.ordered().tolist()
        return Lexical(
            [places[number] for number in numbers],
            (found.document.content for found in self.stream(numbers)),
        )

    @property
    def known(self) -> Callable[[], Sequence[Segment]]:
        """What has been read for searching, for the next snapshot to start from."""
        if "parts" not in self.__dict__:
            return self._known
        segments = [part.segment for part in self.parts]
        return lambda: segments

    @cached_property
    def parts(self) -> list[Part]:
        """All documents of the version, each in one part.

        Raises:
            DataError: The table, or a vector in it, is damaged.
        """
        known = self._known() if self.count else ()
        if not known:
            return [self._read_all()]
        numbers, stamps = self._stamps()
        parts, missing = [], np.ones(len(stamps), np.bool_)
        for segment in known:
            places = np.flatnonzero(missing)
            rows, there = segment.find(stamps[places])
            rows, places = rows[there], places[there]
            missing[places] = False
            if len(rows):
                own = np.zeros(len(segment), np.uint64)
                own[rows] = numbers[places]
                parts.append(Part(segment, rows if ascends(rows) else np.sort(rows), own))
        if missing.sum() > len(stamps) // 2:
            return [self._read_all()]
        if missing.any():
            parts.append(self._part(list(self._take(numbers[missing]))))
        return few(parts) or [self._part([])]

    def rows(self) -> Iterator[tuple[Batch, pa.RecordBatch]]:
        """All rows, a few thousand at a time: their vectors, verified, and the columns as they are stored.

        Raises:
            DataError: A row's vectors are damaged.
        """
        for batch in self._scan(ROW_COLUMNS, _LOAD_ROWS):
            yield read_batch(batch, self.dimension, self.folder), batch

    def vectors(self, size: int) -> Iterator[Vectors]:
        """All documents with their vectors, at most ``size`` documents at a time, each verified.

        Raises:
            DataError: A row is damaged.
        """
        for batch in self._scan(ROW_COLUMNS, size):
            yield vectors_of(batch, self.dimension, self.folder)

    def _scan(self, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows, and their numbers.

        Raises:
            DataError: Rows are missing.
        """
        count = 0
        with lance_errors("read", self.folder):
            for batch in self._table.search().select(columns).with_row_id(True).to_batches(size):
                count += batch.num_rows
                yield batch
        if count != self.count:
            raise DataError(f"{self.folder}: read {count} of {self.count} documents", hint="the table is damaged")

    def _read_all(self) -> Part:
        batches = self._scan(VECTOR_COLUMNS, _LOAD_ROWS)
        return self._part([read_batch(batch, self.dimension, self.folder) for batch in batches])

    def _part(self, batches: list[Batch]) -> Part:
        segment = Segment.of(batches, self.dimension)
        numbers = np.concatenate([np.empty(0, np.uint64), *(batch.numbers for batch in batches)])
        if not np.isfinite(segment.norm):
            bad = int(np.flatnonzero(~np.isfinite(segment.vectors).all(axis=1))[0])
            owner = bad if bad < len(segment) else int(segment.owner[bad - len(segment)])
            name = show(segment.ids[owner])
            raise DataError(f"{self.folder}: the vector of document {name} is damaged", hint="index it again")
        return Part(segment, np.arange(len(segment)), numbers)

    def _take(self, numbers: NDArray[np.uint64]) -> Iterator[Batch]:
        for start in range(0, len(numbers), _TAKE_ROWS):
            with lance_errors("read", self.folder):
                query = self._table.take_row_ids(numbers[start : start + _TAKE_ROWS].tolist()).with_row_id()
                table = query.select(VECTOR_COLUMNS).to_arrow()
            for batch in table.combine_chunks().to_batches():
                yield read_batch(batch, self.dimension, self.folder)

    def _stamps(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        with lance_errors("read", self.folder):
            # In a thousand small batches, as to_arrow() reads them, it takes five times as long.
            table = self._table.search().select(["stamp"]).with_row_id(True).to_batches(_STAMPS).read_all()
        return table["_rowid"].to_numpy(), table["stamp"].to_numpy()


def one_of(ids: Sequence[str]) -> str:
    """A condition of Lance's that these ids meet.

    Example:
        >>> one_of(["it's"])
        "id IN ('it''s')"
    """
    # Without ids that have no UTF-8 form: none of them is stored.
    known = [name for name in ids if name == name.encode("utf-8", "replace").decode("utf-8")]
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in known)
    return f"id IN ({quoted})" if known else "false"
