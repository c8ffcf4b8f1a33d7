"""The ``rerankers`` library: a teacher as one of its rankers."""

from __future__ import annotations

from pathlib import Path

from rabtriever.errors import InputError
from rabtriever.integrations import missing_package
from rabtriever.numerics import DType
from rabtriever.reranker import Reranker

try:
    from rerankers.documents import Document
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result
    from rerankers.utils import prep_docs
except ModuleNotFoundError as error:
    raise missing_package("rerankers", "rerankers", "rerankers") from error

__all__ = ["RabtrieverRanker"]


class RabtrieverRanker(BaseRanker):
    """A teacher with the interface of every ranker of ``rerankers``; scores are log-odds.

    Args:
        model_name_or_path: What :meth:`rabtriever.Reranker.from_pretrained` takes, or a loaded reranker.
        verbose: Taken because all rankers take it; nothing is printed.
        dtype: What to compute in; ``auto`` asks the processor.
        device: A torch device; ``auto`` takes CUDA where there is one.

    Raises:
        InputError: If nothing loadable is there.

    Example:
        >>> ranker = RabtrieverRanker("my-model")                                                     # doctest: +SKIP
        >>> ranker.rank("I spilled my coke", ["bring a sponge", "close the drawer"]).top_k(1)         # doctest: +SKIP
    """

    def __init__(
        self,
        model_name_or_path: str | Path | Reranker,
        verbose: int = 0,
        *,
        dtype: DType = "auto",
        device: str = "auto",
    ) -> None:
        self.verbose = verbose
        self.ranking_type = "pointwise"
        if isinstance(model_name_or_path, Reranker):
            self.model = model_name_or_path
        else:
            self.model = Reranker.from_pretrained(model_name_or_path, dtype=dtype, device=device)

    def score(self, query: str, doc: str) -> float:
        """Log-odds that the document answers the query."""
        return float(self.model.score(query, [doc])[0])

    def rank(
        self,
        query: str,
        docs: str | list[str] | Document | list[Document],
        doc_ids: list[str] | list[int] | None = None,
        metadata: list[dict[str, object]] | None = None,
    ) -> RankedResults:
        """All documents, best first, with ranks from 1.

        Raises:
            InputError: If a document is an image.
        """
        if not isinstance(docs, str | Document) and not docs:
            return RankedResults(results=[], query=query, has_scores=True)  # the library's own helper needs a document
        documents = prep_docs(docs, doc_ids, metadata)
        if any(document.text is None for document in documents):
            raise InputError("a document has no text, and images cannot be read", hint="give documents with a text")
        ranked = self.model.rank(query, [document.text for document in documents])
        results = [
            Result(document=documents[place], score=score, rank=rank)
            for rank, (place, score) in enumerate(ranked, start=1)
        ]
        return RankedResults(results=results, query=query, has_scores=True)
