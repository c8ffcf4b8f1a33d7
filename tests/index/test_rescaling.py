"""Codes of single bits: used where they are faithful for the queries at hand, and refused where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.doubles import HashingStudent
from rabtriever.data import Document
from rabtriever.errors import InputError
from rabtriever.index import Index, accelerator
from rabtriever.index.rescaling import build_bits, query_factors

faiss = pytest.importorskip("faiss")

QUESTIONS = [f"question {i}" for i in range(60)]


class Wide(HashingStudent):
    """Vectors as a language model's are: a few huge dimensions that queries hardly weigh, and a common mean."""

    def __init__(self, **options: str) -> None:
        super().__init__(dimension=128, **options)

    def encode_document(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
        vectors = super().encode_document(texts) + np.linspace(-1, 1, self.dimension, dtype=np.float32)
        vectors[:, :3] *= 100
        return vectors

    def encode_query(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
        vectors = super().encode_query(texts)
        vectors[:, :3] *= 0.01
        return vectors


def _bits(index: Index) -> bool:
    index.search("q")
    scans = [part.segment.accelerator for part in index._snapshot.parts]
    return any(scan is not None and scan._factors is not None for scan in scans)


def test_rescaling_and_rotation_leave_products_as_they_are() -> None:
    rng = np.random.default_rng(0)
    documents = (rng.standard_normal((200, 24)) * 10.0 ** rng.uniform(-2, 2, 24)).astype(np.float32)
    documents[:, 5] = 3.0  # a dimension that never varies
    queries = (rng.standard_normal((50, 24)) * 10.0 ** rng.uniform(-2, 2, 24)).astype(np.float32)
    queries[:, 7] = 0.0  # and one that no query uses
    index = build_bits(documents, queries)
    factors = query_factors(index)
    assert factors is not None
    transform = faiss.downcast_VectorTransform(index.chain.at(0))
    products = transform.apply(queries * factors) @ transform.apply(documents).T
    assert np.allclose(products, queries @ documents.T, atol=1e-3 * np.abs(queries @ documents.T).max())
    spread = transform.apply(documents).std(axis=0)
    assert spread.max() < 20 * spread.min()  # 10,000 times before
    assert query_factors(faiss.IndexFlatIP(4)) is None


def test_hits_are_those_of_an_exact_search(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", Wide())
    index.add([Document(f"d{i}", f"text {i}", metadata={"n": i}) for i in range(1200)], batch_size=1200)
    header = index.accelerate(QUESTIONS, fast=True)
    assert (header.codes, header.recall) == ("rabitq", header.bits_recall)
    assert header.recall is not None
    assert header.recall >= accelerator.LEAST_RECALL
    index.delete([f"d{i}" for i in range(0, 1200, 5)])
    index.upsert([Document("new", "new"), Document("d1", "changed")])
    quick, exact = Index.open(index.path, Wide()), Index.open(index.path, Wide())
    exact._open = exact._store.snapshot()
    assert (_bits(quick), _bits(exact)) == (True, False)
    same = 0
    for i in range(20):
        found, truth = (reader.search(f"other question {i}", k=10) for reader in (quick, exact))
        same += sum(hit in truth for hit in found)  # scores and all
    assert same >= 196
    for options in ({"filter": "n < 200"}, {"filter": "n = 7"}, {"k": 600}, {"k": 2000}):
        assert quick.search("q", **options) == exact.search("q", **options)
    assert quick.check().cache == "ready"


def test_where_they_miss_too_much_eight_bits_are_used(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())  # 16 bits cannot tell so many documents apart
    index.add([f"text {i}" for i in range(3000)], batch_size=3000)
    header = index.accelerate(QUESTIONS, fast=True)
    assert header.bits_recall is not None
    assert header.bits_recall < accelerator.LEAST_RECALL
    assert (header.codes, _bits(Index.open(index.path, HashingStudent()))) == ("sq8", False)


def test_they_are_made_for_real_queries_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    for queries in (None, [], ["the same"] * 100):
        with pytest.raises(InputError, match="give 40 different ones or more"):
            index.accelerate(queries, fast=True)
    assert index.accelerate(QUESTIONS, fast=True).codes is None  # there is nothing to search
    monkeypatch.setattr(accelerator, "version", lambda: None)
    with pytest.raises(InputError, match="faiss, which is not installed"):
        index.accelerate(QUESTIONS, fast=True)
