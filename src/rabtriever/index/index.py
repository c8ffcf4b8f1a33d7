"""An index: a folder that keeps documents with their vectors and answers queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, overload

import numpy as np

from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.errors import DataError, InputError
from rabtriever.files import atomic_folder
from rabtriever.index.description import Description
from rabtriever.index.filter import Filter
from rabtriever.index.protocol import Encoder, checked_vectors
from rabtriever.index.records import (
    Counts,
    DocumentLike,
    Hit,
    check_documents,
    check_ids,
    label_hash,
    sigmoid,
    text_hash,
    whole_number,
    write_metadata,
)
from rabtriever.index.scan import top_k
from rabtriever.index.store import Row, Store
from rabtriever.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.numerics import DType

__all__ = ["Index"]


class Index:
    """Documents and their vectors in a folder; made by :meth:`create` and :meth:`open`.

    An open index reads one version of the folder until :meth:`refresh`, or until it writes itself; others may write
    meanwhile. What :meth:`add` and :meth:`delete` have done when they return (or, for ``add``, when they report
    progress) survives a crash of the process and of the machine. Several threads may search at once. Do not fork a
    process that has an index open; spawn.

    Example:
        >>> from rabtriever import Index, Retriever                                      # doctest: +SKIP
        >>> index = Index.create("skills.index", Retriever.from_pretrained("model"))     # doctest: +SKIP
        >>> index.add([("sponge", "find a sponge"), ("drawer", "close the drawer")])     # doctest: +SKIP
        Counts(added=2, updated=0, unchanged=0)
        >>> index.search("I spilled my coke", k=1)[0].id                                 # doctest: +SKIP
        'sponge'
    """

    def __init__(self, folder: Path, description: Description, student: Encoder | None, dtype: DType) -> None:
        self.path = folder
        self.description = description
        self._dtype: DType = dtype
        self._student = student
        self._store = Store(folder, description.dimension)
        self._snapshot = self._store.snapshot()
        self._lock = RLock()

    @classmethod
    def create(cls, path: str | Path, student: Encoder, *, exist_ok: bool = False) -> Index:
        """Make an empty index for a model's vectors; its folder appears whole or not at all.

        Args:
            path: The folder to make. Folders above it are made as well.
            student: The model.
            exist_ok: Open the index that is there already, if there is one.

        Raises:
            InputError: Something else is there, or an index and ``exist_ok`` is false.
            MismatchError: The index that is there was made with another model.
        """
        folder = Path(path).expanduser()
        if (folder / "index.json").exists():
            if exist_ok:
                return cls.open(folder, student)
            raise InputError(f"the index {folder} exists already", hint="open it, or choose another folder")
        # No file is a marker: what is there is never replaced.
        with atomic_folder(folder, marker="never") as fresh:
            Store.create(fresh, student.dimension)
            Description.of(student, folder).write(fresh)
        return cls.open(folder, student)

    @classmethod
    def open(cls, path: str | Path, student: Encoder | None = None, *, dtype: DType = "auto") -> Index:
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

    @property
    def student(self) -> Encoder:
        """The model, loaded on first use where :meth:`open` got none."""
        with self._lock:
            if self._student is None:
                model = self.description.model_folder(self.path)
                from rabtriever.retriever import Retriever

                student = Retriever.from_pretrained(model, dtype=self._dtype)
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
        """Read from now on the newest version, and return its number."""
        self._snapshot = self._store.snapshot()
        return self.version

    def get(self, id: str) -> Document:
        """Return a document.

        Raises:
            InputError: No document has this id.
        """
        found = self._snapshot.get(check_ids([id]))
        if id not in found:
            raise InputError(f"{self.path}: no document has the id {show(id)}")
        return found[id]

    def add(
        self, documents: Iterable[DocumentLike], *, batch_size: int = 256, progress: Progress | None = None
    ) -> Counts:
        """Add documents, replace those that changed, and leave the others as they are.

        A document is replaced when its id is there with another title, text or metadata; it is encoded again only when
        what the model reads of it changed. Documents that are not given stay: see :meth:`delete`.

        Each batch is one commit. Whatever ends the call early, the batches before it are stored, and the same call
        again takes up where it stopped.

        Args:
            documents: Documents, mappings with ``id``, ``text`` and perhaps ``title`` and ``metadata``, pairs
                (id, text), or texts, whose ids are hashes of theirs. Read as needed: any iterator will do.
            batch_size: Documents read, encoded and committed together.
            progress: Where to report; documents count once they are stored.

        Raises:
            DataError: A document is malformed, two have the same id, or a vector is not finite.
            InputError: The disk is full.
        """
        size = whole_number("batch_size", batch_size)
        total = len(documents) if isinstance(documents, Sized) else None
        counts, checked = Counts(), check_documents(documents)
        try:
            with (progress or SilentProgress()).task("index documents", total=total, unit="documents") as task:
                known = self._store.known()
                while batch := list(islice(checked, size)):
                    counts += self._add_batch(batch, known)
                    task.advance(len(batch))
            self._store.flush()  # a former process may have been killed between its commit and its flush
        finally:
            self.refresh()
        return counts

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents in one commit; ids that are not there are passed over.

        Args:
            ids: The ids, or one id.

        Returns:
            The number of documents deleted.
        """
        deleted = self._store.delete(check_ids([ids] if isinstance(ids, str) else ids))
        self.refresh()
        return deleted

    @overload  # a str is also a Sequence[str], and means one query
    def search(  # type: ignore[overload-overlap]
        self, query: str, k: int = ..., *, rerank: int = ..., filter: str | None = ...
    ) -> list[Hit]: ...
    @overload
    def search(
        self, query: Sequence[str], k: int = ..., *, rerank: int = ..., filter: str | None = ...
    ) -> list[list[Hit]]: ...
    def search(
        self, query: str | Sequence[str], k: int = 10, *, rerank: int = 0, filter: str | None = None
    ) -> list[Hit] | list[list[Hit]]:
        """Find the documents that answer a query best, by exact search over all vectors.

        Args:
            query: A query, or several.
            k: How many hits to return.
            rerank: How many of the student's best the teacher reads together with the query. They come first, in the
                teacher's order; the student's others keep their places below.
            filter: Which documents take part, by their metadata: see :mod:`rabtriever.index.filter`.

        Returns:
            Hits, best first; for several queries, one list each. The same for one query as among many.

        Raises:
            InputError: A query is empty, ``k`` is below 1, ``rerank`` below 0, or the filter is malformed.
            MismatchError: The model found is not the one that the index was made with.
        """
        queries = [query] if isinstance(query, str) else list(query)
        for text in queries:
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"a query must be a text that is not empty, found {show(text)}")
        wanted = whole_number("k", k)
        read = whole_number("rerank", rerank, least=0)
        hits = self._find(queries, max(wanted, read), None if filter is None else Filter(filter))
        if read:
            hits = [self._reread(text, found, read) for text, found in zip(queries, hits, strict=True)]
        hits = [found[:wanted] for found in hits]
        return hits[0] if isinstance(query, str) else hits

    def _add_batch(self, batch: Sequence[Document], known: Mapping[str, tuple[str, int]]) -> Counts:
        new: list[Row] = []  # to be encoded: unknown, or with another text
        kept: list[Row] = []  # with the same text, but another title or other metadata
        for document in batch:
            metadata, digest = write_metadata(document), text_hash(document.content)
            stored_digest, stored_label = known.get(document.id, ("", 0))
            if stored_digest != digest:
                new.append((document, metadata, digest))
            elif stored_label != label_hash(document.title, metadata):
                kept.append((document, metadata, digest))
        if new or kept:
            fresh = self._encode([document for document, _, _ in new])
            vectors = self._store.vectors([document.id for document, _, _ in kept])
            self._store.upsert(new + kept, np.concatenate([fresh, vectors]))
        added = sum(document.id not in known for document in batch)
        updated = len(new) + len(kept) - added
        return Counts(added=added, updated=updated, unchanged=len(batch) - added - updated)

    def _encode(self, documents: Sequence[Document]) -> NDArray[np.float32]:
        if not documents:
            return np.empty((0, self.description.dimension), np.float32)
        vectors = self.student.encode_document([document.content for document in documents])
        names = [f"document {show(document.id)}" for document in documents]
        return checked_vectors(vectors, names, self.description.dimension)

    def _find(self, queries: Sequence[str], k: int, condition: Filter | None) -> list[list[Hit]]:
        """The student's ``k`` best hits for each query."""
        snapshot = self._snapshot  # one version throughout, whatever another thread writes
        if not queries or snapshot.count == 0:
            return [[] for _ in queries]
        with self._lock:  # what a version needs is loaded once, however many threads ask
            norm = snapshot.norm
            rows = None if condition is None else snapshot.rows(condition)
        names = [f"query {show(text)}" for text in queries]
        vectors = checked_vectors(self.student.encode_query(queries), names, self.description.dimension)
        bias = self.description.bias
        ranked = top_k(snapshot.vectors, vectors, k, snapshot.ids, norm=norm, bias=bias, rows=rows)
        documents = snapshot.documents(sorted({row for found in ranked for row, _ in found}))
        return [[Hit.of(documents[row], score) for row, score in found] for found in ranked]

    def _reread(self, query: str, hits: list[Hit], n: int) -> list[Hit]:
        """Let the teacher order the first ``n`` hits."""
        texts = [Document(hit.id, hit.text, hit.title).content for hit in hits[:n]]
        if not texts:
            return hits
        scores = [float(score) for score in self.student.reranker.score(query, texts)]
        if not np.isfinite(scores).all():
            raise DataError(f"the teacher gave a score that is not finite for query {show(query)}", code="not_finite")
        judged = [
            replace(hit, score=score, probability=sigmoid(score), stage="teacher")
            for hit, score in zip(hits[:n], scores, strict=True)
        ]
        return sorted(judged, key=lambda hit: -hit.score) + hits[n:]  # stable: the student's order breaks ties
