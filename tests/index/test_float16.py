"""Vectors stored as float16: half the bytes, widened before they are scored, kept so through every change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.data import Document
from rabtriever.errors import DataError, InputError
from rabtriever.index import Index, Passages


def _rounded(student: HashingStudent, documents: list[Document], query: str) -> dict[str, float]:
    """Scores of vectors rounded to float16, computed in float64."""
    vectors = student.encode_document([document.content for document in documents]).astype(np.float16)
    scores = vectors.astype(np.float64) @ student.encode_query([query])[0].astype(np.float64) + student.bias
    return {document.id: float(np.float32(score)) for document, score in zip(documents, scores, strict=True)}


def _vector_type(index: Index) -> str:
    return str(index._store._table.schema.field("vector").type.value_type)


def test_scores_are_those_of_the_rounded_vectors(tmp_path: Path) -> None:
    student = HashingStudent()
    index = Index.create(tmp_path / "index", student, dtype="float16")
    index.add(numbered(0, 60))
    index.upsert([Document("d3", "changed"), Document("d6", "text number 6", "title 6", {"other": "metadata"})])
    assert _vector_type(index) == "halffloat"
    documents = list(index.documents())
    for reader in (index, Index.open(index.path, HashingStudent())):
        found = {hit.id: hit.score for hit in reader.search("q", k=60)}
        assert found == pytest.approx(_rounded(student, documents, "q"), abs=1e-6)
    whole = Index.create(tmp_path / "whole", student)
    whole.add(documents)
    assert found != pytest.approx({hit.id: hit.score for hit in whole.search("q", k=60)}, abs=1e-6)
    assert {batch.vectors.dtype for batch in index.vectors()} == {np.dtype(np.float32)}
    assert index.check().clean


def test_passages_cache_repair_and_another_model_keep_it(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent(), passages=Passages(characters=30), dtype="float16")
    index.add([Document(f"d{i}", f"a text of some length, with the number {i}, " * (i % 3 + 1)) for i in range(60)])
    hits = index.search("q", k=60)
    index.accelerate()
    assert Index.open(index.path, HashingStudent()).search("q", k=60) == hits
    (file,) = (index.path / "documents.lance" / "data").iterdir()
    data, stored = bytearray(file.read_bytes()), next(index.vectors()).vectors[0].astype(np.float16).tobytes()
    data[data.index(stored) + 1] ^= 0x04
    file.write_bytes(data)
    (problem,) = Index.open(index.path, HashingStudent()).check().problems
    assert problem.kind == "vector"
    assert Index.repair(index.path, HashingStudent()).encoded == (problem.id,)
    index = Index.open(index.path, HashingStudent())
    assert (index.search("q", k=60), index.check().clean, _vector_type(index)) == (hits, True, "halffloat")
    index.reindex(HashingStudent(fingerprint="another"))
    assert (_vector_type(index), index.search("q", k=60)) == ("halffloat", hits)


def test_numbers_that_float16_does_not_reach_are_refused(tmp_path: Path) -> None:
    class Loud(HashingStudent):
        def encode_document(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            return super().encode_document(texts) + np.float32(70_000 if texts == ["loud"] else 0)

    index = Index.create(tmp_path / "index", Loud(), dtype="float16")
    index.add([("a", "soft")])
    with pytest.raises(DataError, match="vector of document 'b' holds numbers beyond 65,504") as caught:
        index.add([("b", "loud")])
    assert "float32" in caught.value.hint
    assert len(index) == 1


def test_it_is_settled_when_an_index_is_made(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    assert _vector_type(index) == "float"
    assert len(Index.create(index.path, HashingStudent(), exist_ok=True)) == 0
    with pytest.raises(InputError, match="stores vectors as float32, not float16"):
        Index.create(index.path, HashingStudent(), exist_ok=True, dtype="float16")
    with pytest.raises(InputError, match="dtype must be one of float32, float16"):
        Index.create(tmp_path / "other", HashingStudent(), dtype="int8")  # type: ignore[arg-type]
