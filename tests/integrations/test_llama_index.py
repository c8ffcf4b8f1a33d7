"""LlamaIndex's own classes get what the student, the index and the teacher give."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore, TextNode

from rabtriever import Index, InputError, Retriever
from rabtriever.integrations.llama_index import RabtrieverEmbedding, RabtrieverRerank, RabtrieverRetriever
from toy_data import NEEDS, TOOLS


def test_embeddings_are_the_students(student: Retriever) -> None:
    embedding = RabtrieverEmbedding(student)
    nodes = IngestionPipeline(transformations=[embedding]).run(nodes=[TextNode(text=tool) for tool in TOOLS])
    assert np.allclose([node.embedding for node in nodes], student.encode_document(TOOLS), atol=1e-5)
    query = embedding.get_query_embedding(NEEDS[0])
    assert np.allclose(query, student.encode_query(NEEDS[:1])[0], atol=1e-6)
    assert asyncio.run(embedding.aget_query_embedding(NEEDS[0])) == query
    assert np.allclose(
        asyncio.run(embedding.aget_text_embedding_batch(list(TOOLS))), student.encode_document(TOOLS), atol=1e-5
    )
    assert embedding.model_name == student.path


def test_the_retriever_finds_what_the_index_finds(index: Index) -> None:
    retriever = RabtrieverRetriever(index, 4, rerank=2, filter="place > 0")
    hits = index.search(NEEDS[1], 4, rerank=2, filter="place > 0")
    found = retriever.retrieve(NEEDS[1])
    assert [node.node.node_id for node in found] == [hit.id for hit in hits]
    assert [node.score for node in found] == [hit.score for hit in hits]
    assert [node.text for node in found] == [index.get(hit.id).content for hit in hits]
    assert [node.metadata["place"] for node in found] == [hit.metadata["place"] for hit in hits]
    assert [node.node_id for node in asyncio.run(retriever.aretrieve(NEEDS[1]))] == [hit.id for hit in hits]
    assert RabtrieverRetriever(index, threshold=1.0).retrieve(NEEDS[1]) == []


def test_the_postprocessor_orders_as_the_teacher_does(student: Retriever) -> None:
    rerank = RabtrieverRerank(reranker=student.reranker, top_n=3)
    nodes = [NodeWithScore(node=TextNode(text=f"take the {tool}"), score=0.0) for tool in TOOLS]
    expected = student.reranker.rank(NEEDS[2], [node.text for node in nodes], 3)
    found = rerank.postprocess_nodes(nodes, query_str=NEEDS[2])
    assert [node.text for node in found] == [nodes[place].text for place, _ in expected]
    assert [node.score for node in found] == [score for _, score in expected]
    assert nodes[0].score == 0.0
    with pytest.raises(InputError, match="needs the query"):
        rerank.postprocess_nodes(nodes)


def test_postprocessing_is_reranking(index: Index, student: Retriever) -> None:
    found = RabtrieverRetriever(index, 6).retrieve(NEEDS[3])
    ordered = RabtrieverRerank(reranker=student.reranker).postprocess_nodes(found, query_str=NEEDS[3])
    assert [node.node_id for node in ordered] == [hit.id for hit in index.search(NEEDS[3], 6, rerank=6)]
