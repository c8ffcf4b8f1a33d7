"""What the server can do, without HTTP: plain calls that any thread may make."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from rabtriever.data.records import Document
from rabtriever.errors import DataError, InputError, RabtrieverError
from rabtriever.fusion import Hybrid
from rabtriever.index import CacheKeeper, Hit, Index
from rabtriever.index.records import Counts, DocumentLike, sigmoid
from rabtriever.index.searching import reread
from rabtriever.serving.engine import Engine
from rabtriever.serving.explain import Explanation, explain
from rabtriever.serving.failures import ServingError
from rabtriever.serving.metrics import Metrics
from rabtriever.serving.model import BatchedModel, PairTeacher, ServedModel, Writer, work_of
from rabtriever.serving.queue import Kind
from rabtriever.serving.settings import Limits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rabtriever.numerics import DType

__all__ = ["Found", "Rationale", "Request", "Result", "Service"]

_CACHE_SECONDS = 60.0
"""How long the end of a server waits for a cache that is being built; one that is cut off leaves nothing behind."""


@dataclass(frozen=True, slots=True)
class Request:
    """A search.

    Attributes:
        query: What is to be answered.
        k: How many hits to return.
        rerank: How many of the student's best the teacher reads.
        filter: Which documents take part.
        hybrid: Whether, and how, BM25 takes part in the order.
        bm25: Whether BM25 alone makes the order.
        threshold: The least probability of a hit.
        explain: Whether to say which dimensions made the student's score.
    """

    query: str
    k: int = 10
    rerank: int = 0
    filter: str | None = None
    hybrid: Hybrid = False
    bm25: bool = False
    threshold: float | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A hit, and where the student had it.

    Attributes:
        hit: The hit, scored by the teacher where it was reread.
        student_rank: Its place in the student's order, from 1.
        student_score: The student's log-odds.
        explanation: What made the student's score, where that was asked for.
    """

    hit: Hit
    student_rank: int
    student_score: float
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a search, and its cost in milliseconds."""

    found: Sequence[Found]
    search_ms: float
    rerank_ms: float


@dataclass(frozen=True, slots=True)
class Rationale:
    """Why a document is right or wrong, in words.

    Attributes:
        probability: The teacher's.
        text: The words.
        by: The language model that generated them.
    """

    probability: float
    text: str
    by: str


class Service:
    """An index, opened for many requests at once.

    Args:
        path: The index.
        student: The model it was made with; loaded from where it was when left out.
        teacher: Reranks; the student's own when left out.
        teacher_name: What clients call that teacher; the model's name when left out.
        limits: See :class:`rabtriever.serving.settings.Limits`.
        dtype: What a student that is loaded here computes in.
        rationales: Whether the teacher's base model says in words why; it is loaded when first asked.

    Raises:
        InputError: There is no index, or its model is not to be found; or there is no chat model for rationales.
        MismatchError: The model is another than the index's.
    """

    def __init__(
        self,
        path: str | Path,
        student: ServedModel | None = None,
        teacher: PairTeacher | None = None,
        teacher_name: str | None = None,
        limits: Limits | None = None,
        dtype: DType = "auto",
        rationales: bool = False,
    ) -> None:
        loaded = student or _load(path, dtype)
        judge = teacher or loaded.reranker
        self.writer = _writer(judge, dtype) if rationales else None
        self.metrics = Metrics()
        self.engine = Engine(work_of(loaded, judge, self.writer), limits, self.metrics)
        self.model = BatchedModel(self.engine, loaded)
        self.index = Index.open(path, self.model)
        self.keeper = CacheKeeper(self.index)
        self.keeper.look()
        self.metrics.documents.set_function(lambda: self.index.count)
        self.name = Path(loaded.path).name if loaded.path else "rabtriever"
        self.teacher_name = teacher_name or self.name

    def close(self) -> bool:
        """Finish what was begun; safe to call twice."""
        finished = self.engine.close()
        self.keeper.wait(_CACHE_SECONDS)
        self.index.close()
        return finished

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def search(self, request: Request) -> Result:
        """Do what :meth:`rabtriever.Index.search` does, and remember the student's order and the cost.

        Raises:
            InputError: The query is empty or the filter malformed.
            ServingError: See :meth:`Engine.submit`; status 500 where a stored document is damaged.
        """
        began = time.perf_counter()
        try:
            depth = max(request.k, request.rerank)
            hits = self.index.search(
                request.query, depth, filter=request.filter, hybrid=request.hybrid, bm25=request.bm25
            )
            searched = time.perf_counter()
            ordered = reread(self.model.reranker, request.query, hits, request.rerank) if request.rerank else hits
        except DataError as error:
            raise ServingError(500, error.code, error.message, error.hint) from error
        reranked = time.perf_counter()
        ranks = {hit.id: (rank, hit.score) for rank, hit in enumerate(hits, start=1)}
        least = request.threshold or 0.0
        kept = [hit for hit in ordered[: request.k] if hit.probability >= least]
        why = explain(self.model, request.query, kept) if request.explain else [None] * len(kept)
        found = [Found(hit, *ranks[hit.id], reason) for hit, reason in zip(kept, why, strict=True)]
        return Result(found, 1000 * (searched - began), 1000 * (reranked - searched))

    def upsert(self, documents: Sequence[DocumentLike]) -> Counts:
        """Store documents: all of them, or none.

        Raises:
            DataError: One is malformed, or two have the same id.
            InputError: The disk is full, or another process keeps writing.
        """
        counts = self.index.upsert(documents)
        self.keeper.look()
        return counts

    def get(self, id: str) -> Document:
        """Return a document.

        Raises:
            ServingError: There is none of this id (404), or it is damaged (500).
        """
        try:
            return self.index.get(id)
        except DataError as error:
            raise ServingError(500, error.code, error.message, error.hint) from error
        except InputError:
            raise _unknown_document() from None

    def delete(self, id: str) -> None:
        """Delete a document.

        Raises:
            ServingError: There is none of this id (404).
        """
        if not self.index.delete([id]):
            raise _unknown_document()
        self.keeper.look()

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """The teacher's log-odds that each document answers the query."""
        return [float(score) for score in self.model.reranker.score(query, documents)]

    def rationale(self, query: str, id: str) -> Rationale:
        """Say in words why the teacher takes a stored document for right or wrong.

        Raises:
            ServingError: There is no such document, or nobody writes rationales (404).
        """
        if self.writer is None:
            raise ServingError(
                404, "no_rationales", "no rationales are written here", "start the server with --rationales"
            )
        text = self.get(id).content
        (score,) = self.score(query, [text])
        (words,) = self.engine.submit(Kind.RATIONALE, [(query, text, score >= 0)])
        return Rationale(sigmoid(score), words, self.writer.name)

    def rank(self, query: str, documents: Sequence[str]) -> list[tuple[int, float, float]]:
        """Position, log-odds and probability of each document, best first; ties keep the order given."""
        scores = self.score(query, documents)
        order = sorted(range(len(scores)), key=lambda position: -scores[position])
        return [(position, scores[position], sigmoid(scores[position])) for position in order]

    def embed(self, what: Literal["query", "document"], texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """The student's vectors ``(n, k)``, and how many tokens it read for them."""
        vectors = self.model.encode_query(texts) if what == "query" else self.model.encode_document(texts)
        return vectors, self.model.tokens(what, texts)

    def probe(self) -> bool:
        """Let the model read one word: whether it is in order again."""
        try:
            self.engine.submit(Kind.QUERY, ["?"])
        except RabtrieverError:
            return False
        return True


def _load(path: str | Path, dtype: DType) -> ServedModel:
    from rabtriever.compiled import load_student
    from rabtriever.index.description import Description

    folder = Path(path).expanduser()
    return load_student(Description.read(folder).model_folder(folder), dtype=dtype)


def _writer(teacher: PairTeacher, dtype: DType) -> Writer:
    from rabtriever.rationale import RationaleWriter
    from rabtriever.reranker import Reranker

    if not isinstance(teacher, Reranker):
        raise InputError(
            "rationales are written by a language model, which an exported student does not bring",
            hint="serve the model itself, or name a teacher to rerank with",
            code="no_chat_model",
        )
    return RationaleWriter(teacher, dtype)


def _unknown_document() -> ServingError:
    return ServingError(404, "unknown_document", "no document has this id", "ids are told apart to the letter")
