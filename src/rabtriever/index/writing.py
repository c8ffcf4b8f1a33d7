"""Adding documents: what is unchanged is skipped, what is new is encoded, each batch is one commit that lasts.

Memory: one window of documents with their vectors (a batch is encoded while the one before it is written), and about a
hundred bytes for the id of each document given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.index.passages import Passages, cut, texts_of
from rabtriever.index.protocol import Encoder, checked_vectors
from rabtriever.index.records import Counts, DocumentLike, check_documents, text_hash, write_metadata
from rabtriever.index.rows import Numbers, Row, check_range
from rabtriever.index.storage import return_memory
from rabtriever.index.store import Store
from rabtriever.progress import Progress, SilentProgress, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Encoding", "add", "encode_again", "upsert"]

_AGAIN = 256


@dataclass(frozen=True)
class Encoding:
    """How documents become vectors.

    Attributes:
        student: Gives the model, which is loaded only when something must be encoded.
        dimension: Width of the vectors.
        dtype: How their numbers are stored.
        passages: How long documents are cut.
    """

    student: Callable[[], Encoder]
    dimension: int
    dtype: Numbers = "float32"
    passages: Passages | None = None

    def rows(self, planned: Sequence[_Planned]) -> list[Row]:
        """Encode documents, all of their passages together.

        Raises:
            DataError: A vector is not finite, of another width, or beyond what is stored of a number.
        """
        if not planned:
            return []
        spans = [cut(plan.document.content, self.passages) for plan in planned]
        texts, names = [], []
        for plan, where in zip(planned, spans, strict=True):
            parts = texts_of(plan.document.content, where)
            texts += parts
            names += [f"document {show(plan.document.id)}"] * len(parts)
        vectors = checked_vectors(self.student().encode_document(texts), names, self.dimension)
        check_range(vectors, names, self.dtype)
        ends = np.cumsum([max(1, len(where)) for where in spans])
        return [
            plan.row(part, tuple(where))
            for plan, part, where in zip(planned, np.split(vectors, ends[:-1]), spans, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Planned:
    """A document that is to be written."""

    document: Document
    metadata: str
    digest: str
    known: bool

    def row(self, vectors: NDArray[np.float32], spans: tuple[tuple[int, int], ...]) -> Row:
        return Row(self.document, self.metadata, self.digest, vectors, spans)


def add(
    store: Store,
    encoding: Encoding,
    documents: Iterable[DocumentLike],
    *,
    batch_size: int,
    window: int = 1,
    progress: Progress | None = None,
) -> Counts:
    """Add documents; see :meth:`rabtriever.Index.add`."""
    total = len(documents) if isinstance(documents, Sized) else None
    counts, checked = Counts(), check_documents(documents)
    reports = progress or SilentProgress()
    with reports.task("index documents", total=total, unit="documents") as task, _committing(store, task) as commits:
        while ahead := list(islice(checked, batch_size * window)):
            commits.wait()
            return_memory()
            fresh, kept, unchanged = _plan(store, ahead, encoding.passages)
            counts += _count(fresh, kept, unchanged)
            if window > 1:  # what is encoded together has nearly one length, and needs little padding
                fresh.sort(key=lambda plan: -len(plan.document.content))
            task.advance(unchanged)
            for start in range(0, len(kept), batch_size):
                commits.put(_kept_rows(store, kept[start : start + batch_size], encoding), new=False)
                commits.wait()
            for start in range(0, len(fresh), batch_size):
                batch = fresh[start : start + batch_size]
                commits.put(encoding.rows(batch), new=not any(plan.known for plan in batch))
    store.flush()  # a former process may have been killed between its commit and its flush
    return counts


def upsert(store: Store, encoding: Encoding, documents: Iterable[DocumentLike]) -> Counts:
    """Write documents in a single commit; see :meth:`rabtriever.Index.upsert`."""
    fresh, kept, unchanged = _plan(store, list(check_documents(documents)), encoding.passages)
    rows = encoding.rows(fresh) + _kept_rows(store, kept, encoding)
    if rows:
        store.put(rows, new=not kept and not any(plan.known for plan in fresh))
    store.flush()
    return _count(fresh, kept, unchanged)


def encode_again(store: Store, encoding: Encoding, ids: Sequence[str]) -> None:
    """Give stored documents new vectors, a few hundred to a commit.

    Raises:
        DataError: A document's text is damaged.
    """
    for start in range(0, len(ids), _AGAIN):
        found = store.snapshot().get(ids[start : start + _AGAIN])
        plans = [
            _Planned(there.document, write_metadata(there.document), there.text_hash, True) for there in found.values()
        ]
        store.put(encoding.rows(plans), new=False)


def _plan(
    store: Store, documents: Sequence[Document], passages: Passages | None
) -> tuple[list[_Planned], list[_Planned], int]:
    """What must be encoded, what only needs another title or other metadata, and how many are as they were."""
    written = [(document, write_metadata(document), text_hash(document.content)) for document in documents]
    stored = store.stored([document.id for document in documents])
    fresh, kept, unchanged = [], [], 0
    for document, metadata, digest in written:
        there = stored.get(document.id)
        if there == (digest, document.title, metadata):
            unchanged += 1
        elif there is not None and there[0] == digest:
            kept.append(_Planned(document, metadata, digest, True))
        else:
            fresh.append(_Planned(document, metadata, digest, there is not None))
    return fresh, kept, unchanged


def _kept_rows(store: Store, planned: Sequence[_Planned], encoding: Encoding) -> list[Row]:
    vectors = store.vectors([plan.document.id for plan in planned])
    rows = []
    for plan in planned:
        spans = tuple(cut(plan.document.content, encoding.passages))
        rows.append(plan.row(vectors[plan.document.id], spans))
    return rows


def _count(fresh: Sequence[_Planned], kept: Sequence[_Planned], unchanged: int) -> Counts:
    known = sum(plan.known for plan in fresh)
    return Counts(len(fresh) - known, known + len(kept), unchanged)


class _Commits:
    """Writes one batch while the next is being encoded."""

    def __init__(self, store: Store, task: Task, pool: ThreadPoolExecutor) -> None:
        self._store, self._task, self._pool = store, task, pool
        self._running: tuple[Future[None], int] | None = None

    def put(self, rows: Sequence[Row], *, new: bool) -> None:
        self.wait()
        self._running = self._pool.submit(self._store.put, rows, new=new), len(rows)

    def wait(self) -> None:
        """Wait for the batch that is being written; only then does it count as done."""
        running, self._running = self._running, None
        if running is not None:
            running[0].result()
            self._task.advance(running[1])


@contextmanager
def _committing(store: Store, task: Task) -> Iterator[_Commits]:
    with ThreadPoolExecutor(1, thread_name_prefix="rabtriever-commit") as pool:
        commits = _Commits(store, task, pool)
        try:
            yield commits
        finally:
            commits.wait()
