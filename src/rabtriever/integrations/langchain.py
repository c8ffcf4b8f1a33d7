"""LangChain: a student as embeddings, an index as a retriever, a teacher as a document compressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rabtriever.dual_encoder import DualEncoder
from rabtriever.fusion import Hybrid
from rabtriever.index import Hit
from rabtriever.index.reading import Reader
from rabtriever.integrations import missing_package
from rabtriever.reranker import Reranker

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict, Field
except ModuleNotFoundError as error:
    raise missing_package("langchain-core", "langchain_core", "langchain") from error

__all__ = ["RabtrieverCompressor", "RabtrieverEmbeddings", "RabtrieverRetriever"]


class RabtrieverEmbeddings(Embeddings):
    """A student's vectors of documents and queries, for any vector store that ranks by **inner product**.

    Stores that rank by cosine, such as ``InMemoryVectorStore``, rank otherwise than the student does.

    Args:
        student: The model, or its export (:class:`rabtriever.CompiledRetriever`).

    Example:
        >>> embeddings = RabtrieverEmbeddings(Retriever.from_pretrained("my-model"))     # doctest: +SKIP
        >>> len(embeddings.embed_query("I spilled my coke"))                             # doctest: +SKIP
        576
    """

    def __init__(self, student: DualEncoder) -> None:
        self.student = student

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents."""
        vectors: list[list[float]] = self.student.encode_document(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The folded vector of a query, whose inner product with a document's is the log-odds, up to a constant."""
        vector: list[float] = self.student.encode_query([text])[0].tolist()
        return vector


class RabtrieverRetriever(BaseRetriever):
    """An index as a retriever.

    A document's ``page_content`` is what the model reads of it, its title included. Its metadata are the stored ones,
    and ``relevance_score`` (log-odds), ``probability``, and ``span`` where one passage of it fits best.

    Args:
        index: An open index.
        k: How many documents to find.
        rerank: How many of them the teacher reads again with the query.
        filter: Which documents take part, as in ``room = 'kitchen'``.
        hybrid: Let BM25 take part in the order, as in :meth:`rabtriever.Index.search`.
        threshold: The least probability of a document.

    Raises:
        InputError: When it is asked something that :meth:`rabtriever.Index.search` refuses, such as an empty query.

    Example:
        >>> from rabtriever import Index                                                 # doctest: +SKIP
        >>> retriever = RabtrieverRetriever(index=Index.open("my-index"), k=3)           # doctest: +SKIP
        >>> retriever.invoke("I spilled my coke")[0].page_content                        # doctest: +SKIP
        'bring a sponge'
    """

    index: Reader
    k: int = Field(default=10, ge=1)
    rerank: int = Field(default=0, ge=0)
    filter: str | None = None
    hybrid: Hybrid = False
    threshold: float | None = None

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        hits = self.index.search(
            query, self.k, rerank=self.rerank, filter=self.filter, hybrid=self.hybrid, threshold=self.threshold
        )
        return [_found(hit) for hit in hits]


class RabtrieverCompressor(BaseDocumentCompressor):
    """A teacher that orders documents anew, reading each one together with the query.

    Documents come back as copies with ``relevance_score`` (log-odds) in their metadata.

    Args:
        reranker: The teacher; a student's is ``student.reranker``.
        top_n: How many documents to keep; all when left out.

    Example:
        >>> teacher = Reranker.from_pretrained("my-model")                               # doctest: +SKIP
        >>> compressor = RabtrieverCompressor(reranker=teacher, top_n=3)                 # doctest: +SKIP
        >>> compressor.compress_documents(documents, "I spilled my coke")                # doctest: +SKIP
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    reranker: Reranker
    top_n: int | None = Field(default=None, ge=1)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best documents for the query, best first."""
        ranked = self.reranker.rank(query, [document.page_content for document in documents], self.top_n)
        return [
            documents[place].model_copy(update={"metadata": {**documents[place].metadata, "relevance_score": score}})
            for place, score in ranked
        ]


def _found(hit: Hit) -> Document:
    metadata: dict[str, Any] = {**hit.metadata, "relevance_score": hit.score, "probability": hit.probability}
    if hit.span is not None:
        metadata["span"] = list(hit.span)
    return Document(id=hit.id, page_content=hit.content, metadata=metadata)
