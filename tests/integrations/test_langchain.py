"""LangChain's own classes get what the student, the index and the teacher give."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="needs the extra langchain")

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

from rabtriever import Index, InputError, Retriever
from rabtriever.integrations.langchain import RabtrieverCompressor, RabtrieverEmbeddings, RabtrieverRetriever
from toy_data import NEEDS, TOOLS


def test_embeddings_are_the_students(student: Retriever) -> None:
    embeddings = RabtrieverEmbeddings(student)
    documents, query = embeddings.embed_documents(list(TOOLS)), embeddings.embed_query(NEEDS[0])
    assert np.allclose(documents, student.encode_document(TOOLS), atol=1e-6)
    assert np.allclose(query, student.encode_query(NEEDS[:1])[0], atol=1e-6)
    assert asyncio.run(embeddings.aembed_query(NEEDS[0])) == query
    assert type(query[0]) is float
    assert embeddings.embed_documents([]) == []


def test_the_retriever_finds_what_the_index_finds_inside_a_chain(index: Index) -> None:
    retriever = RabtrieverRetriever(index=index, k=4, rerank=2, filter="place > 0")
    hits = index.search(NEEDS[1], 4, rerank=2, filter="place > 0")
    chain = retriever | RunnableLambda(lambda found: [document.id for document in found])
    assert chain.invoke(NEEDS[1]) == [hit.id for hit in hits]
    found = asyncio.run(retriever.ainvoke(NEEDS[1]))
    assert [document.metadata["relevance_score"] for document in found] == [hit.score for hit in hits]
    assert [document.metadata["place"] for document in found] == [hit.metadata["place"] for hit in hits]
    assert [document.page_content for document in found] == [index.get(hit.id).content for hit in hits]


def test_the_retriever_hands_its_other_settings_on(index: Index) -> None:
    assert RabtrieverRetriever(index=index, threshold=1.0).invoke(NEEDS[0]) == []
    hybrid = RabtrieverRetriever(index=index, k=1, hybrid=True).invoke("broom")
    assert [document.id for document in hybrid] == [hit.id for hit in index.search("broom", 1, hybrid=True)]
    with pytest.raises(InputError, match="empty"):
        RabtrieverRetriever(index=index).invoke("")


def test_the_compressor_orders_as_the_teacher_does(student: Retriever) -> None:
    compressor = RabtrieverCompressor(reranker=student.reranker, top_n=3)
    documents = [Document(page_content=f"take the {tool}", metadata={"tool": tool}) for tool in TOOLS]
    expected = student.reranker.rank(NEEDS[2], [document.page_content for document in documents], 3)
    found = compressor.compress_documents(documents, NEEDS[2])
    assert [document.metadata["tool"] for document in found] == [TOOLS[place] for place, _ in expected]
    assert [document.metadata["relevance_score"] for document in found] == [score for _, score in expected]
    assert "relevance_score" not in documents[0].metadata
    assert compressor.compress_documents([], NEEDS[2]) == []


def test_compressing_is_reranking(index: Index, student: Retriever) -> None:
    found = RabtrieverRetriever(index=index, k=6).invoke(NEEDS[3])
    compressed = RabtrieverCompressor(reranker=student.reranker).compress_documents(found, NEEDS[3])
    assert [document.id for document in compressed] == [hit.id for hit in index.search(NEEDS[3], 6, rerank=6)]
