"""LlamaIndex: a student as an embedding model, an index as a retriever, a teacher as a node postprocessor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rabtriever.compiled import CompiledRetriever
from rabtriever.errors import InputError
from rabtriever.fusion import Hybrid
from rabtriever.index import Hit
from rabtriever.index.reading import Reader
from rabtriever.integrations import missing_package
from rabtriever.reranker import Reranker

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
except ModuleNotFoundError as error:
    raise missing_package("llama-index-core", "llama_index", "llama-index") from error

if TYPE_CHECKING:
    from rabtriever.retriever import Retriever

__all__ = ["RabtrieverEmbedding", "RabtrieverRerank", "RabtrieverRetriever"]


class RabtrieverEmbedding(BaseEmbedding):
    """A student's vectors of texts and queries, for any vector store that ranks by **inner product**.

    Stores that rank by cosine, such as ``SimpleVectorStore``, rank otherwise than the student does.

    Args:
        student: The model, or its export (:class:`rabtriever.CompiledRetriever`).
        embed_batch_size: Texts that LlamaIndex hands over at once.

    Example:
        >>> embedding = RabtrieverEmbedding(Retriever.from_pretrained("my-model"))       # doctest: +SKIP
        >>> len(embedding.get_query_embedding("I spilled my coke"))                      # doctest: +SKIP
        576
    """

    _student: Any = PrivateAttr()

    def __init__(self, student: Retriever | CompiledRetriever, *, embed_batch_size: int = 64) -> None:
        super().__init__(model_name=student.path or "rabtriever", embed_batch_size=embed_batch_size)
        self._student = student

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex knows the class by."""
        return "RabtrieverEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._student.encode_query([query])[0].tolist()
        return vector

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._student.encode_document(texts).tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class RabtrieverRetriever(BaseRetriever):
    """An index as a retriever; a node's score is the log-odds.

    A node's text is what the model reads of a document, its title included. ``probability``, and ``span`` where one
    passage fits best, are among its metadata.

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
        >>> RabtrieverRetriever(Index.open("my-index")).retrieve("I spilled my coke")    # doctest: +SKIP
    """

    def __init__(
        self,
        index: Reader,
        k: int = 10,
        *,
        rerank: int = 0,
        filter: str | None = None,
        hybrid: Hybrid = False,
        threshold: float | None = None,
    ) -> None:
        super().__init__()
        self._index = index
        self._k = k
        self._rerank = rerank
        self._filter = filter
        self._hybrid = hybrid
        self._threshold = threshold

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._index.search(
            query_bundle.query_str,
            self._k,
            rerank=self._rerank,
            filter=self._filter,
            hybrid=self._hybrid,
            threshold=self._threshold,
        )
        return [_found(hit) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class RabtrieverRerank(BaseNodePostprocessor):
    """A teacher that orders nodes anew, reading each one together with the query.

    Args:
        reranker: The teacher; a student's is ``student.reranker``.
        top_n: How many nodes to keep; all when left out.

    Raises:
        InputError: When it is called without a query.

    Example:
        >>> teacher = Reranker.from_pretrained("my-model")                               # doctest: +SKIP
        >>> rerank = RabtrieverRerank(reranker=teacher, top_n=3)                         # doctest: +SKIP
        >>> rerank.postprocess_nodes(nodes, query_str="I spilled my coke")               # doctest: +SKIP
    """

    reranker: Reranker = Field(exclude=True)
    top_n: int | None = Field(default=None, ge=1)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex knows the class by."""
        return "RabtrieverRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("a reranker needs the query", hint="pass query_str or query_bundle")
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranked = self.reranker.rank(query_bundle.query_str, texts, self.top_n)
        return [NodeWithScore(node=nodes[place].node, score=score) for place, score in ranked]


def _found(hit: Hit) -> NodeWithScore:
    metadata: dict[str, Any] = {**hit.metadata, "probability": hit.probability}
    if hit.span is not None:
        metadata["span"] = list(hit.span)
    node = TextNode(
        id_=hit.id,
        text=hit.content,
        metadata=metadata,
        excluded_embed_metadata_keys=list(metadata),  # models read the content alone, here as in the index
        excluded_llm_metadata_keys=["probability", "span"],
    )
    return NodeWithScore(node=node, score=hit.score)
