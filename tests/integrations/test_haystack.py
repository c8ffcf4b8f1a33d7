"""Haystack pipelines get what the student, the index and the teacher give."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("haystack", reason="needs the extra haystack")

from pathlib import Path

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from rabtriever import Index, InputError, Retriever
from rabtriever.integrations.haystack import RabtrieverDocumentEmbedder, RabtrieverRanker, RabtrieverTextEmbedder
from toy_data import NEEDS, TOOLS


@pytest.fixture
def store() -> Iterator[InMemoryDocumentStore]:
    store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
    yield store
    store.shutdown()


def test_a_pipeline_ranks_as_the_index_does(student: Retriever, index: Index, store: InMemoryDocumentStore) -> None:
    given = [Document(id=stored.id, content=stored.content) for stored in index.documents()]
    store.write_documents(RabtrieverDocumentEmbedder(student).run(given)["documents"])
    assert given[0].embedding is None
    pipeline = Pipeline()
    pipeline.add_component("embedder", RabtrieverTextEmbedder(student))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=5, scale_score=False))
    pipeline.add_component("ranker", RabtrieverRanker(student, top_k=3))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    out = pipeline.run(
        {"embedder": {"text": NEEDS[1]}, "ranker": {"query": NEEDS[1]}}, include_outputs_from={"retriever"}
    )
    plain, reranked = index.search(NEEDS[1], 5), index.search(NEEDS[1], 5, rerank=5)
    assert [document.id for document in out["retriever"]["documents"]] == [hit.id for hit in plain]
    scores = [document.score for document in out["retriever"]["documents"]]
    assert np.allclose(scores, [hit.score - student.bias for hit in plain], atol=1e-4)
    assert [document.id for document in out["ranker"]["documents"]] == [hit.id for hit in reranked[:3]]
    assert np.allclose([document.score for document in out["ranker"]["documents"]], [h.score for h in reranked[:3]])


def test_pipelines_as_yaml_name_the_model(student_folder: Path, student: Retriever) -> None:
    pipeline = Pipeline()
    pipeline.add_component("embedder", RabtrieverTextEmbedder(student_folder))
    pipeline.add_component("documents", RabtrieverDocumentEmbedder(student))
    pipeline.add_component("ranker", RabtrieverRanker(student, top_k=2))
    written = pipeline.dumps()
    assert str(student_folder) in written
    read = Pipeline.loads(written, allowed_modules=["rabtriever.integrations.haystack"])
    assert read.dumps() == written
    found = read.get_component("embedder").run(NEEDS[0])["embedding"]
    assert np.allclose(found, student.encode_query(NEEDS[:1])[0], rtol=0.1, atol=0.1)  # in the processor's own format
    documents = [Document(content=f"take the {tool}") for tool in TOOLS]
    assert len(read.get_component("ranker").run(NEEDS[0], documents)["documents"]) == 2
    assert len(read.get_component("ranker").run(NEEDS[0], documents, top_k=4)["documents"]) == 4


def test_mistakes_are_told(student: Retriever, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="top_k"):
        RabtrieverRanker(student, top_k=0)
    with pytest.raises(InputError, match="does not exist"):
        RabtrieverTextEmbedder(tmp_path / "none").warm_up()
    unsaved = Retriever(student.reranker, student.predictor)
    with pytest.raises(InputError, match="never saved"):
        RabtrieverTextEmbedder(unsaved).to_dict()
