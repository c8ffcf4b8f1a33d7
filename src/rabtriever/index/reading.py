"""One version of an index, open for reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Self, TypedDict, Unpack, overload

from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.errors import InputError
from rabtriever.fusion import Hybrid
from rabtriever.index import cache, check, searching
from rabtriever.index.description import Description
from rabtriever.index.protocol import Encoder
from rabtriever.index.records import Hit, Version, check_ids, whole_number
from rabtriever.index.snapshot import Snapshot
from rabtriever.index.store import Store
from rabtriever.index.vectors import Vectors

if TYPE_CHECKING:
    from rabtriever.numerics import DType

__all__ = ["Reader"]


class _Options(TypedDict, total=False):
    rerank: int
    filter: str | None
    hybrid: Hybrid
    bm25: bool
    threshold: float | None


class Reader:
    """What :class:`rabtriever.Index` can do without writing.

    Args:
        folder: The index folder.
        description: Its ``index.json``.
        student: The model, or None to load it from where it was, once it is needed.
        dtype: What that model computes in.

    Attributes:
        path: The index folder.
        description: Its ``index.json``, as of the version that is read.
    """

    def __init__(self, folder: Path, description: Description, student: Encoder | None, dtype: DType) -> None:
        self.path = folder
        self._dtype: DType = dtype
        self._student = student
        self._lock = RLock()
        self._open: Snapshot | None
        self._adopt(description)

    @classmethod
    def open(cls, path: str | Path, student: Encoder | None = None, *, dtype: DType = "auto") -> Self:
        """Open an index.

        Args:
            path: Its folder.
            student: The model it was made with. When left out, it is loaded from where it was, once it is needed.
            dtype: What that model computes in.

        Raises:
            InputError: There is no index.
            DataError: Its files are damaged.
            MismatchError: It was made with another model.
        """
        folder = Path(path).expanduser()
        description = Description.read(folder)
        if student is not None:
            description.check(student, folder)
        return cls(folder, description, student, dtype)

    def close(self) -> None:
        """Let go of the version that is read, so that a compaction may remove it; safe to call twice.

        An index that nobody refers to any more closes itself. ``with Index.open(path) as index:`` closes it at the end.
        """
        if self._open is not None:
            self._open.release()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _snapshot(self) -> Snapshot:
        if self._open is None:
            raise InputError(f"the index {self.path} has been closed", hint="open it again")
        return self._open

    @property
    def student(self) -> Encoder:
        """The model, loaded on first use where :meth:`open` got none."""
        with self._lock:
            if self._student is None:
                model = self.description.model_folder(self.path)
                from rabtriever.compiled import load_student

                student = load_student(model, dtype=self._dtype)
                self.description.check(student, self.path)
                self._student = student
            return self._student

    @property
    def version(self) -> int:
        """The version of the table that this index reads."""
        return self._snapshot.version

    @property
    def count(self) -> int:
        """The number of documents."""
        return self._snapshot.count

    def __len__(self) -> int:
        return self.count

    def __bool__(self) -> bool:
        return True  # an index without documents is an index

    def refresh(self) -> int:
        """Read from now on the newest version, and return its number.

        Raises:
            MismatchError: The index has been moved to another model than the one this was opened with.
        """
        now = Description.read(self.path)
        if now.table != self.description.table:
            if self._student is not None:
                now.check(self._student, self.path)
            self._adopt(now)
        else:
            self._advance(self._store, self._store.snapshot(self._snapshot.known))
        return self.version

    def get(self, id: str) -> Document:
        """Return a document.

        Raises:
            InputError: No document has this id.
            DataError: It is damaged.
        """
        found = self._snapshot.get(check_ids([id]))
        if id not in found:
            raise InputError(f"{self.path}: no document has the id {show(id)}")
        return found[id].document

    def documents(self, filter: str | None = None, start: int = 0, limit: int | None = None) -> Iterator[Document]:
        """The documents one by one, in the order in which they were last written.

        Args:
            filter: Only those that meet it: see :mod:`rabtriever.index.filter`.
            start: How many of them to pass over.
            limit: How many to yield at most; all when left out.

        Raises:
            InputError: The filter is malformed.
        """
        first = whole_number("start", start, least=0)
        last = None if limit is None else first + whole_number("limit", limit, least=0)
        with self._lock:
            snapshot, numbers = self._snapshot, self._snapshot.ordered(searching.parse(filter))[first:last]
        return (found.document for found in snapshot.stream(numbers.tolist()))

    def vectors(self, batch_size: int = 1024) -> Iterator[Vectors]:
        """All documents with their vectors, in no particular order: what any other engine needs to search them.

        A document's score is the largest inner product of its vectors with ``student.encode_query(...)``, plus
        ``description.bias``. No model is loaded. Memory: one batch.

        Args:
            batch_size: Documents in each batch at most.

        Raises:
            InputError: ``batch_size`` is below 1.
            DataError: A document or a vector is damaged.

        Example:
            >>> index = Index.open("skills.index")                     # doctest: +SKIP
            >>> for batch in index.vectors():                          # doctest: +SKIP
            ...     other_engine.add(batch.ids, batch.vectors)
        """
        return self._snapshot.vectors(whole_number("batch_size", batch_size))

    @overload  # a str is also a Sequence[str], and means one query
    def search(  # type: ignore[overload-overlap]
        self, query: str, k: int = ..., **options: Unpack[_Options]
    ) -> list[Hit]: ...
    @overload
    def search(self, query: Sequence[str], k: int = ..., **options: Unpack[_Options]) -> list[list[Hit]]: ...
    def search(
        self,
        query: str | Sequence[str],
        k: int = 10,
        *,
        rerank: int = 0,
        filter: str | None = None,
        hybrid: Hybrid = False,
        bm25: bool = False,
        threshold: float | None = None,
    ) -> list[Hit] | list[list[Hit]]:
        """Find the documents that answer a query best, by exact scores.

        Args:
            query: A query, or several.
            k: How many hits to return.
            rerank: How many of the student's best the teacher reads together with the query. They come first, in the
                teacher's order; the student's others keep their places below.
            filter: Which documents take part, by their metadata: see :mod:`rabtriever.index.filter`.
            hybrid: Order by the student's log-odds plus a share of BM25's score over the documents' words: True for
                0.5, a number for another, ``"ranks"`` for reciprocal ranks instead. The hits' own scores and
                probabilities stay the student's.
            bm25: Order by BM25 alone, to compare with; documents that share no word with the query are left out.
            threshold: The least probability of a hit, 0 to 1. An empty list says that nothing fits.

        Returns:
            Hits, best first; for several queries, one list each. The same for one query as among many.

        Raises:
            InputError: A query is empty, ``k`` is below 1, ``rerank`` below 0, or the filter is malformed.
            MismatchError: The model found is not the one that the index was made with.
            DataError: What is stored of a document is damaged.
        """
        queries = [query] if isinstance(query, str) else list(query)
        wanted = searching.Wanted.of(queries, k, rerank, filter, hybrid, bm25, threshold)
        snapshot = self._snapshot  # one version throughout, whatever another thread writes
        with self._lock:  # what a version needs is loaded once, however many threads ask
            wanted.prepare(snapshot)
        hits = searching.answer(snapshot, wanted, lambda: self.student, self.description.bias)
        return hits[0] if isinstance(query, str) else hits

    @property
    def uncached(self) -> int:
        """How many documents of the version that is read are not searched through the cache."""
        with self._lock:
            return sum(len(part.rows) for part in self._snapshot.parts if part.segment.texts is None)

    def adopt_cache(self) -> None:
        """Search the newest version through the newest cache from now on; safe while others search.

        Raises:
            InputError: The index has been closed.
        """
        store, segments = self._store, cache.segments(self.path, self.description)
        fresh = store.snapshot(lambda: segments)
        _ = fresh.parts  # what it needs is read now, not by the next who searches
        self._advance(store, fresh)

    def versions(self) -> list[Version]:
        """The versions that are kept, oldest first."""
        return [Version(number, time) for number, time in self._store.versions()]

    def check(self) -> check.Report:
        """Verify every document and vector of the newest version against its checksum, ids, and the cache."""
        return check.check_index(self._store, self.description)

    def _advance(self, store: Store, fresh: Snapshot) -> None:
        """Read from now on another version, unless another thread has come further meanwhile."""
        with self._lock:
            if store is self._store and fresh.version >= self._snapshot.version:
                self._open = fresh

    def _adopt(self, description: Description) -> None:
        """Read the table that a description names, with its cache where there is one."""
        self.description = description
        self._store = Store(self.path, description.table, description.dimension)
        folder = self.path  # not self: a cycle would keep the lease until the garbage collector comes round
        self._open = self._store.snapshot(lambda: cache.segments(folder, description))
