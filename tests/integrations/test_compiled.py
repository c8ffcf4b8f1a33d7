"""An exported student stands for its student in each framework."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from closeness import assert_same
from rabtriever import CompiledRetriever, Retriever
from rabtriever.export import export_graph
from toy_data import NEEDS, TOOLS


@pytest.fixture(scope="module")
def compiled(student_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> CompiledRetriever:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    folder = tmp_path_factory.mktemp("compiled") / "model"
    export_graph(student_folder, folder, "openvino")
    return CompiledRetriever(folder, dtype="float32")


def test_langchain(compiled: CompiledRetriever, student: Retriever) -> None:
    pytest.importorskip("langchain_core", reason="needs the extra langchain")
    from rabtriever.integrations.langchain import RabtrieverEmbeddings

    embeddings = RabtrieverEmbeddings(compiled)
    assert_same(np.array(embeddings.embed_documents(list(TOOLS)), np.float32), student.encode_document(TOOLS))
    assert_same(np.array([embeddings.embed_query(NEEDS[0])], np.float32), student.encode_query(NEEDS[:1]))


def test_llama_index(compiled: CompiledRetriever, student: Retriever) -> None:
    pytest.importorskip("llama_index.core", reason="needs the extra llama-index")
    from rabtriever.integrations.llama_index import RabtrieverEmbedding

    embedding = RabtrieverEmbedding(compiled)
    assert embedding.model_name == compiled.path
    found = np.array([embedding.get_query_embedding(NEEDS[0])], np.float32)
    assert_same(found, student.encode_query(NEEDS[:1]))


def test_haystack_by_the_exports_folder(compiled: CompiledRetriever, student: Retriever) -> None:
    pytest.importorskip("haystack", reason="needs the extra haystack")
    from haystack import Document

    from rabtriever.integrations.haystack import RabtrieverDocumentEmbedder, RabtrieverRanker, RabtrieverTextEmbedder

    documents = [Document(content=tool) for tool in TOOLS]
    embedded = RabtrieverDocumentEmbedder(compiled).run(documents)["documents"]
    assert_same(np.array([d.embedding for d in embedded], np.float32), student.encode_document(TOOLS))
    by_name = RabtrieverTextEmbedder(compiled.path)
    assert by_name.to_dict()["init_parameters"] == {"model": compiled.path}
    cosine = np.corrcoef(by_name.run(NEEDS[0])["embedding"], student.encode_query(NEEDS[:1])[0])[0, 1]
    assert cosine > 0.99  # by its name it computes in what the processor multiplies
    ranked = RabtrieverRanker(compiled, top_k=3).run(query=NEEDS[0], documents=documents)["documents"]
    wanted = student.reranker.rank(NEEDS[0], TOOLS, 3)
    assert [document.content for document in ranked] == [TOOLS[place] for place, _ in wanted]


def test_mteb(compiled: CompiledRetriever) -> None:
    pytest.importorskip("mteb")
    from rabtriever.integrations.mteb import RabtrieverEncoder

    for given in (compiled, compiled.path):
        encoder = RabtrieverEncoder(given)
        assert encoder.student.fingerprint == compiled.fingerprint
        assert encoder.mteb_model_meta.embed_dim == compiled.dimension
        assert encoder.mteb_model_meta.max_tokens == compiled.reranker.prompt.parts.max_document_tokens
