"""The Lance table that holds an index's documents and vectors: the truth, of which everything else is a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from rabtriever.errors import DataError, InputError, MismatchError, RabtrieverError
from rabtriever.index.description import Description
from rabtriever.index.locks import Lease, exclusive
from rabtriever.index.rows import STAMP_ROWS, VECTOR_COLUMNS, Numbers, Row, schema, to_table
from rabtriever.index.seal import Seals
from rabtriever.index.segment import Segment, read_batch
from rabtriever.index.snapshot import Snapshot, one_of
from rabtriever.index.storage import Flusher, lance_errors

if TYPE_CHECKING:
    from lancedb.table import LanceTable
    from numpy.typing import NDArray

__all__ = ["Store"]


class Store:
    """The table of one index folder.

    Args:
        folder: The index folder.
        table: The table's name.
        dimension: Width of the vectors.
        pending: Whether the table is being built beside the one that ``index.json`` names.

    Attributes:
        dtype: How the numbers of its vectors are stored.

    Raises:
        DataError: The table is missing or damaged.
    """

    def __init__(self, folder: Path, table: str, dimension: int, *, pending: bool = False) -> None:
        self.folder, self.name, self.dimension, self._pending = folder, table, dimension, pending
        self._flusher = Flusher(folder / f"{table}.lance")
        self._seals = Seals(folder, table)
        self._seen = -1
        with lance_errors("open", folder):
            if not (folder / f"{table}.lance").is_dir():
                raise DataError(f"{folder}: the table {table}.lance is missing", hint="restore it, or index again")
            self._table = self._handle()
            vector = self._table.schema.field("vector").type
        if getattr(vector, "list_size", None) != dimension:
            raise DataError(
                f"{folder}: the table's vectors have {vector.list_size} numbers, index.json says {dimension}"
            )
        self.dtype: Numbers = "float16" if str(vector.value_type) == "halffloat" else "float32"

    @classmethod
    def create(
        cls, folder: Path, table: str, dimension: int, dtype: Numbers = "float32", *, pending: bool = False
    ) -> Store:
        """Make an empty table in an existing folder."""
        import lancedb

        with lance_errors("create", folder):
            made = lancedb.connect(folder.resolve()).create_table(table, schema=schema(dimension, dtype))
            # Without it, two processes that add the same new id both succeed, and the id is there twice.
            cast("LanceTable", made).set_unenforced_primary_key("id")
        store = cls(folder, table, dimension, pending=pending)
        store.flush()
        return store

    def snapshot(self, known: Callable[[], Sequence[Segment]] = tuple) -> Snapshot:
        """The table as it is now, whatever is written later.

        Args:
            known: Gives segments that may hold some of its rows.
        """
        # Nobody cleans up between choosing the version and taking the lease on it.
        with _if_writable(self.folder), lance_errors("read", self.folder):
            table = self._handle()
            version = int(table.version)
            lease = Lease(self.folder, self.name, version)
            table.checkout(version)
        return Snapshot(self.folder, table, self.dimension, lease, known)

    def stored(self, ids: Sequence[str]) -> dict[str, tuple[str, str, str]]:
        """The hash of the content, the title and the metadata of those of these ids that are there now."""
        with lance_errors("read", self.folder):
            self._latest()
            self._seen = int(self._table.version)
            columns = ["id", "text_hash", "title", "metadata"]
            found = self._table.search().where(one_of(ids)).select(columns).to_arrow()
        rows = zip(*(found[name].to_pylist() for name in columns), strict=True)
        return {name: (digest, title, metadata) for name, digest, title, metadata in rows}

    def ids(self) -> set[str]:
        """The ids that are there now."""
        with lance_errors("read", self.folder):
            self._latest()
            return {
                name for batch in self._table.search().select(["id"]).to_batches() for name in batch["id"].to_pylist()
            }

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The latest vectors of stored ids, ``(p, k)`` each."""
        if not ids:
            return {}
        with lance_errors("read", self.folder):
            self._latest()
            query = self._table.search().where(one_of(ids)).select(VECTOR_COLUMNS).with_row_id(True)
            batches = [read_batch(part, self.dimension, self.folder) for part in query.to_batches()]
        found = {}
        for batch in batches:
            for row, name in enumerate(batch.ids.to_pylist()):
                found[name] = np.concatenate([batch.vectors[row : row + 1], batch.more[batch.owner == row]])
        if len(found) < len(ids):
            raise RabtrieverError(
                f"{self.folder}: another process deletes documents", hint="run it again", code="storage"
            )
        return found

    def put(self, rows: Sequence[Row], *, new: bool) -> None:
        """Store rows whose ids differ, replacing those with the same ids, in one commit that lasts.

        Args:
            rows: The rows.
            new: Whether :meth:`stored` found none of their ids.
        """
        if len(rows) > STAMP_ROWS:
            raise InputError(f"one commit holds {STAMP_ROWS:,} documents at most, found {len(rows):,}", hint="use add")
        with self.writing(), lance_errors("write to", self.folder):
            version = int(self._table.version)
            batch = to_table(rows, version + 1, self.dimension, self.dtype)
            if new and version == self._seen:  # nobody wrote since: no need to look for the ids again
                self._table.add(batch)
            else:
                merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(batch)
            if version == self._seen:
                self._seen = int(self._table.version)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete the rows with these ids in one commit that lasts; return how many there were."""
        with self.writing(), lance_errors("write to", self.folder):
            there = int(self._table.count_rows(one_of(ids)))
            if there:  # else it would commit a version equal to the last
                self._table.delete(one_of(ids))
        return there

    def delete_rows(self, stamps: Sequence[int]) -> None:
        """Delete the rows with these stamps in one commit that lasts."""
        if stamps:
            with self.writing(), lance_errors("write to", self.folder):
                self._table.delete(f"stamp IN ({', '.join(map(str, stamps))})")

    def restore(self, version: int) -> None:
        """Make an earlier version the newest one, by a commit of its own.

        Raises:
            InputError: There is no such version (any more).
        """
        if version not in (known := [number for number, _ in self.versions()]):
            listed = ", ".join(map(str, known[-10:]))
            raise InputError(f"{self.folder} has no version {version}", hint=f"versions: {listed}")
        with self.writing(), lance_errors("write to", self.folder):
            self._table.checkout(version)
            self._table.restore()

    def versions(self) -> list[tuple[int, datetime]]:
        """Number and time of the versions that are kept, oldest first."""
        with lance_errors("read", self.folder):
            self._latest()
            return [(int(found["version"]), found["timestamp"]) for found in self._table.list_versions()]

    def at(self, version: int) -> LanceTable:
        """The table as it was at a version; hold a snapshot of it meanwhile."""
        table = self._handle()
        table.checkout(version)
        return table

    def size(self) -> int:
        """Bytes on the disk."""
        files = (self.folder / f"{self.name}.lance").rglob("*")
        return sum(path.stat().st_size for path in files if path.is_file())

    def flush(self) -> None:
        """Flush to the disk what was written since the last time, and seal it."""
        with lance_errors("write to", self.folder):
            self._flusher.flush()
            self._seals.write()

    @contextmanager
    def writing(self) -> Iterator[LanceTable]:
        """Hold the writers' lock over one commit to the newest version, and flush it.

        Raises:
            InputError: Another process writes for too long (code ``locked``).
            MismatchError: The index has been moved to another model meanwhile.
        """
        with exclusive(self.folder):
            if not self._pending and (now := Description.read(self.folder)).table != self.name:
                raise MismatchError(
                    f"{self.folder} has been moved to another model, {now.model.path or 'one that was never saved'}",
                    hint="open the index again",
                )
            with lance_errors("write to", self.folder):
                self._latest()
            yield self._table
            self.flush()

    def _handle(self) -> LanceTable:
        import lancedb

        self._seals.verify()
        return cast("LanceTable", lancedb.connect(self.folder.resolve()).open_table(self.name))

    def _latest(self) -> None:
        self._seals.verify()
        self._table.checkout_latest()  # type: ignore[no-untyped-call]


@contextmanager
def _if_writable(folder: Path) -> Iterator[None]:
    """Hold the readers' lock; a folder that cannot be written is read without it."""
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder, "readers"))
        except InputError as error:
            if error.code == "locked":
                raise
        yield
