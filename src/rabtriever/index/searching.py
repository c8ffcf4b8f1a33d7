"""From queries to hits, over one version of the index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.data.lines import show
from rabtriever.errors import DataError, InputError
from rabtriever.fusion import Fusion, Hybrid, checked_hybrid
from rabtriever.index.filter import Filter
from rabtriever.index.finding import Finder, Place
from rabtriever.index.parts import Part
from rabtriever.index.protocol import Encoder, Teacher, checked_vectors
from rabtriever.index.records import Hit, check_share, sigmoid, whole_number
from rabtriever.index.snapshot import Snapshot

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Wanted", "answer", "hits_of", "parse", "reread", "sample_queries"]

_SAMPLED = 64
_SAMPLE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search asks for, checked."""

    queries: Sequence[str]
    k: int
    rerank: int
    condition: Filter | None
    hybrid: Fusion
    bm25: bool
    threshold: float

    @classmethod
    def of(
        cls,
        queries: Sequence[str],
        k: int,
        rerank: int,
        filter: str | None,
        hybrid: Hybrid,
        bm25: bool,
        threshold: float | None,
    ) -> Wanted:
        """Check what :meth:`rabtriever.Index.search` was given.

        Raises:
            InputError: Something is not as it must be.
        """
        for text in queries:
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"a query must be a text that is not empty, found {show(text)}")
        least = 0.0 if threshold is None else check_share("threshold", threshold)
        number = whole_number("k", k)
        fusion = checked_hybrid(hybrid)
        if fusion and bm25:
            raise InputError("hybrid fuses BM25 with the student, and bm25 leaves the student out", hint="choose one")
        return cls(queries, number, whole_number("rerank", rerank, least=0), parse(filter), fusion, bm25, least)

    def prepare(self, snapshot: Snapshot) -> None:
        """Let the snapshot read what this search needs."""
        if self.queries and snapshot.count:
            snapshot.masks(self.condition)
            if self.hybrid or self.bm25:
                _ = snapshot.lexical


def parse(filter: str | None) -> Filter | None:
    """A filter from its source, if there is one.

    Raises:
        InputError: It is malformed.
    """
    return None if filter is None else Filter(filter)


def answer(snapshot: Snapshot, wanted: Wanted, student: Callable[[], Encoder], bias: float) -> list[list[Hit]]:
    """The hits of each query; see :meth:`rabtriever.Index.search`."""
    if not wanted.queries or snapshot.count == 0:
        return [[] for _ in wanted.queries]
    names = [f"query {show(text)}" for text in wanted.queries]
    vectors = checked_vectors(student().encode_query(list(wanted.queries)), names, snapshot.dimension)
    depth = max(wanted.k, wanted.rerank)
    finder = Finder(snapshot, wanted.queries, vectors, bias, wanted.condition)
    if wanted.hybrid:
        places = finder.by_both(depth, wanted.hybrid)
    else:
        places = finder.by_words(depth) if wanted.bm25 else finder.by_student(depth)
    hits = hits_of(snapshot, places, vectors)
    if wanted.rerank:
        pairs = zip(wanted.queries, hits, strict=True)
        hits = [reread(student().reranker, text, found, wanted.rerank) for text, found in pairs]
    return [[hit for hit in found[: wanted.k] if hit.probability >= wanted.threshold] for found in hits]


def hits_of(snapshot: Snapshot, places: Sequence[Sequence[Place]], queries: NDArray[np.float32]) -> list[list[Hit]]:
    """Hits with their texts, and the span of the best passage where a document has several."""
    parts = snapshot.parts
    documents = snapshot.found((part, row) for found in places for part, row, _ in found)
    hits: list[list[Hit]] = []
    for query, found in zip(queries, places, strict=True):
        hits.append([])
        for part, row, score in found:
            stored = documents[part, row]
            hit = Hit.of(stored.document, score)
            if stored.spans:
                hit = replace(hit, span=stored.spans[_best_passage(parts[part], row, query)])
            hits[-1].append(hit)
    return hits


def reread(teacher: Teacher, query: str, hits: Sequence[Hit], n: int) -> list[Hit]:
    """Let the teacher order the first ``n`` hits; of a long document it reads the best passage.

    Raises:
        DataError: A score is not finite.
    """
    texts = [hit.passage for hit in hits[:n]]
    if not texts:
        return list(hits)
    scores = [float(score) for score in teacher.score(query, texts)]
    if not np.isfinite(scores).all():
        raise DataError(f"the teacher gave a score that is not finite for query {show(query)}", code="not_finite")
    judged = [
        replace(hit, score=score, probability=sigmoid(score), stage="teacher")
        for hit, score in zip(hits[:n], scores, strict=True)
    ]
    return sorted(judged, key=lambda hit: -hit.score) + list(hits[n:])  # stable: the student's order breaks ties


def sample_queries(
    snapshot: Snapshot, student: Callable[[], Encoder], texts: Sequence[str] | None
) -> Callable[[], NDArray[np.float32]]:
    """What gives query vectors to measure with: of the texts given, or of stored texts' beginnings."""

    def encode() -> NDArray[np.float32]:
        queries = list(texts or [])
        if not queries:
            numbers = snapshot.ordered()
            chosen = np.random.default_rng(0).choice(numbers, min(_SAMPLED, len(numbers)), replace=False)
            found = snapshot.stream(chosen.tolist())
            queries = [text for one in found if (text := one.document.content.strip()[:_SAMPLE_CHARACTERS])]
        names = [f"query {show(text)}" for text in queries]
        return checked_vectors(student().encode_query(queries or ["?"]), names or ["query '?'"], snapshot.dimension)

    return encode


def _best_passage(part: Part, row: int, query: NDArray[np.float32]) -> int:
    segment = part.segment
    rows = np.concatenate([[row], np.flatnonzero(segment.owner == row) + len(segment)])
    # Row by row, unlike a BLAS product, so that of equal passages the first one is taken.
    return int(np.argmax(np.einsum("ij,j->i", segment.vectors[rows].astype(np.float64), query.astype(np.float64))))
