"""What can be evaluated: anything that ranks documents for queries. A protocol, and the systems that come with it.

A system of your own needs no base class, only a ``name`` and a ``rank`` method (and ``prepare``, if it reads the corpus
once beforehand).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rabtriever.bm25 import Bm25
from rabtriever.data.records import Document, Query
from rabtriever.errors import InputError
from rabtriever.evaluation.ranking import ranked, top_k
from rabtriever.progress import Progress, default

__all__ = [
    "Bm25System",
    "DenseSystem",
    "Encoder",
    "PairScorer",
    "Preparable",
    "StudentSystem",
    "System",
    "TeacherSystem",
]

_CHUNK = 256  # documents encoded between two signs of life

Corpus = Mapping[str, Document]
Scores = dict[str, dict[str, float]]
"""Query id -> document id -> score; higher is better."""


@runtime_checkable
class System(Protocol):
    """Ranks documents for queries.

    A system that reads each query together with each document by an LLM may set a class attribute ``pairwise = True``:
    it then gets few queries at a time, and ``evaluate(..., teacher_limit=N)`` applies to it. If it also has an
    ``identity``, a string that changes with whatever changes its answers, an interrupted evaluation keeps those.

    Example:
        >>> class Shortest:
        ...     name = "the shortest documents"
        ...     def rank(self, queries, corpus, k):
        ...         best = sorted(corpus, key=lambda id_: len(corpus[id_].text))[:k]
        ...         return {query.id: {id_: -float(i) for i, id_ in enumerate(best)} for query in queries}
        >>> isinstance(Shortest(), System)
        True
    """

    @property
    def name(self) -> str:
        """What the system is, in a few words; reports state it."""

    def rank(self, queries: Sequence[Query], corpus: Corpus, k: int) -> Scores:
        """Score the best ``k`` documents (or more) for each query: query id -> document id -> score."""


@runtime_checkable
class Preparable(System, Protocol):
    """A system that reads the corpus once beforehand; its time is reported apart from the time per query."""

    def prepare(self, corpus: Corpus, progress: Progress | None = None) -> None:
        """Read the corpus; ``rank`` is then called with the same object."""


class Encoder(Protocol):
    """A bi-encoder: :class:`rabtriever.Retriever` and every sentence-transformers model are one."""

    def encode_document(self, texts: list[str], /) -> Any:
        """``(n, k)`` document vectors."""

    def encode_query(self, texts: list[str], /) -> Any:
        """``(m, k)`` query vectors."""

    def similarity(self, queries: Any, documents: Any, /) -> Any:
        """``(m, n)`` scores."""


class PairScorer(Protocol):
    """A reranker: :class:`rabtriever.Reranker` is one."""

    def score_pairs(self, pairs: Sequence[tuple[str, str]], /) -> ArrayLike:
        """Scores ``(n,)`` of (query text, document text) pairs."""


class Bm25System:
    """BM25 by bm25s, English stop words, no stemming. It ranks every document, those without a common word too.

    Example:
        >>> corpus = {"d1": Document("d1", "find a sponge"), "d2": Document("d2", "open the door")}
        >>> scores = Bm25System().rank([Query("q1", "where is the sponge")], corpus, k=2)
        >>> scores["q1"]["d1"] > scores["q1"]["d2"] == 0
        True
    """

    name = "BM25 (bm25s, English stop words)"
    identity = name

    def __init__(self) -> None:
        self._corpus: Corpus | None = None
        self._index: Bm25 | None = None

    def prepare(self, corpus: Corpus, progress: Progress | None = None) -> None:
        """Index the corpus, unless that is done."""
        if corpus is self._corpus:
            return
        self._index = Bm25([document.content for document in corpus.values()])
        self._corpus = corpus
        self._ids = list(corpus)

    def rank(self, queries: Sequence[Query], corpus: Corpus, k: int) -> Scores:
        """Score the best ``k`` documents for each query."""
        if corpus is not self._corpus:
            self.prepare(corpus)
        assert self._index is not None
        scores = self._index.scores([query.text for query in queries])
        return {query.id: _best(row, self._ids, k, query) for query, row in zip(queries, scores, strict=True)}


class _EncoderSystem:
    """Documents encoded once, queries on the way, and an exact search over all similarities."""

    def __init__(self, encoder: Encoder, name: str) -> None:
        self.name = name
        self._encoder = encoder
        self._corpus: Corpus | None = None
        self._vectors: Any = None

    @property
    def identity(self) -> str:
        """What tells its answers from another's; empty for an encoder without a fingerprint."""
        return str(getattr(self._encoder, "fingerprint", ""))

    def prepare(self, corpus: Corpus, progress: Progress | None = None) -> None:
        """Encode the corpus, unless that is done."""
        if corpus is self._corpus:
            return
        texts = [document.content for document in corpus.values()]
        parts = []
        with (progress or default()).task(f"{self.name}: encoding", total=len(texts), unit="documents") as task:
            for first in range(0, len(texts), _CHUNK):
                part = texts[first : first + _CHUNK]
                parts.append(np.asarray(self._encoder.encode_document(part)))
                task.advance(len(part))
        self._vectors = np.concatenate(parts)
        self._corpus = corpus
        self._ids = list(corpus)

    def rank(self, queries: Sequence[Query], corpus: Corpus, k: int) -> Scores:
        """Score the best ``k`` documents for each query."""
        if corpus is not self._corpus:
            self.prepare(corpus)
        vectors = self._encoder.encode_query([query.text for query in queries])
        similarities = self._encoder.similarity(vectors, self._vectors)
        if hasattr(similarities, "cpu"):  # a torch tensor, perhaps on a GPU
            similarities = similarities.cpu()
        return {
            query.id: _best(row, self._ids, k, query)
            for query, row in zip(queries, np.asarray(similarities), strict=True)
        }


class StudentSystem(_EncoderSystem):
    """The student: one vector per document and query, exact inner-product ranking.

    Args:
        retriever: The student, a :class:`rabtriever.Retriever`.
        name: What the report calls it.

    Example:
        >>> StudentSystem(Retriever.from_pretrained("model"))  # doctest: +SKIP
    """

    def __init__(self, retriever: Encoder, name: str = "student") -> None:
        super().__init__(retriever, name)


class DenseSystem(_EncoderSystem):
    """Any sentence-transformers model, with its own prompts and its own similarity.

    Args:
        model: A folder or a hub id.
        name: What the report calls it; the model when left out.

    Raises:
        InputError: The model cannot be loaded.

    Example:
        >>> DenseSystem("sentence-transformers/all-MiniLM-L6-v2")  # doctest: +SKIP
    """

    def __init__(self, model: str | Path, name: str | None = None) -> None:
        from sentence_transformers import SentenceTransformer

        try:
            encoder = SentenceTransformer(str(model))
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{model} cannot be loaded as a sentence-transformers model: {reason}",
                hint="give the folder of a saved model, or a hub id",
            ) from error
        super().__init__(encoder, name or str(model))


class TeacherSystem:
    """The teacher: reads every document together with every query, or the best that a faster system has found.

    Args:
        reranker: The teacher, a :class:`rabtriever.Reranker`.
        name: What the report calls it.
        candidates: Read only so many documents for each query; the name says so. All when left out.
        first: Chooses these documents; BM25 when left out.

    Raises:
        InputError: ``candidates`` is below 1.

    Example:
        >>> TeacherSystem(Reranker.from_pretrained("model"))  # doctest: +SKIP
    """

    pairwise: ClassVar[bool] = True

    def __init__(
        self,
        reranker: PairScorer,
        name: str = "teacher",
        candidates: int | None = None,
        first: System | None = None,
    ) -> None:
        if candidates is not None and candidates < 1:
            raise InputError(f"the number of candidates must be at least 1, found {candidates}")
        chooser = "BM25" if first is None else f"the {first.name}"
        self.name = name if candidates is None else f"{name} on {chooser}'s best {candidates}"
        self._reranker = reranker
        self._candidates = candidates
        self._first = first or Bm25System()

    @property
    def identity(self) -> str:
        """Model, number format and choice of documents; empty where a part of it has no fingerprint."""
        model = getattr(self._reranker, "fingerprint", "")
        chooser = "" if self._candidates is None else getattr(self._first, "identity", "")
        if not model or not (chooser or self._candidates is None):
            return ""
        dtype = getattr(getattr(self._reranker, "backbone", None), "dtype", "")
        return f"{self.name} {model} {dtype} {chooser}"

    def prepare(self, corpus: Corpus, progress: Progress | None = None) -> None:
        """Let the system that chooses the candidates read the corpus, if there is one."""
        if self._candidates is not None and isinstance(self._first, Preparable):
            self._first.prepare(corpus, progress)

    def rank(self, queries: Sequence[Query], corpus: Corpus, k: int) -> Scores:
        """Score the best ``k`` documents for each query."""
        chosen = {query.id: list(corpus) for query in queries}
        if self._candidates is not None:
            first = self._first.rank(queries, corpus, self._candidates)
            chosen = {query.id: ranked(first[query.id], query.id)[: self._candidates] for query in queries}
        pairs = [(query.text, corpus[document].content) for query in queries for document in chosen[query.id]]
        scores = np.asarray(self._reranker.score_pairs(pairs), dtype=np.float64)
        ranking: Scores = {}
        start = 0
        for query in queries:
            ids = chosen[query.id]
            ranking[query.id] = _best(scores[start : start + len(ids)], ids, k, query)
            start += len(ids)
        return ranking


def _best(scores: NDArray[np.floating], ids: Sequence[str], k: int, query: Query) -> dict[str, float]:
    return {ids[position]: float(scores[position]) for position in top_k(scores, k, query.id)}
