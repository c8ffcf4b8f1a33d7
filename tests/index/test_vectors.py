"""The vectors that leave an index are those that its searches are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.data import Document
from rabtriever.errors import DataError, InputError
from rabtriever.index import Index, Passages


def test_every_document_comes_once_with_its_vector(tmp_path: Path) -> None:
    student = HashingStudent()
    index = Index.create(tmp_path / "index", student)
    index.add(numbered(0, 50), batch_size=20)
    index.delete(["d7"])
    index.upsert([Document("d8", "changed")])
    reader = Index.open(tmp_path / "index")  # no model is there, and none is needed
    batches = list(reader.vectors(batch_size=16))
    assert max(len(batch.documents) for batch in batches) <= 16
    documents = [document for batch in batches for document in batch.documents]
    assert {one.id: one for one in documents} == {one.id: one for one in index.documents()}
    assert [name for batch in batches for name in batch.ids] == [document.id for document in documents]
    expected = student.encode_document([document.content for document in documents])
    assert np.array_equal(np.concatenate([batch.vectors for batch in batches]), expected)
    assert len({stamp for batch in batches for stamp in batch.stamps.tolist()}) == len(documents) == 49


def test_passages_stand_together_in_order_and_score_as_the_index_does(tmp_path: Path) -> None:
    student = HashingStudent()
    index = Index.create(tmp_path / "index", student, passages=Passages(characters=30, overlap=5))
    index.add([(f"d{i}", f"document {i} says a few things. " * (i % 4 + 1)) for i in range(12)])
    (batch,) = index.vectors()
    assert len(batch.vectors) > 12
    scores: dict[str, float] = {}
    query = student.encode_query(["what now"])[0].astype(np.float64)
    for row, (name, passage, vector) in enumerate(zip(batch.ids, batch.passages, batch.vectors, strict=True)):
        place = int(batch.owner[row])
        document, spans = batch.documents[place], batch.spans[place]
        assert document.id == name
        assert passage == (0 if row == 0 or batch.owner[row - 1] != place else batch.passages[row - 1] + 1)
        text = document.content[slice(*spans[passage])] if spans else document.content
        assert np.array_equal(vector, student.encode_document([text])[0])
        scores[name] = max(scores.get(name, -np.inf), float(np.float32(vector.astype(np.float64) @ query - 0.25)))
    assert {hit.id: hit.score for hit in index.search("what now", k=12)} == scores


def test_one_version_is_read_whatever_is_written_meanwhile(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 30))
    stream = index.vectors(batch_size=10)
    first = next(stream)
    index.delete([f"d{i}" for i in range(30)])
    assert len(first.documents) + sum(len(batch.documents) for batch in stream) == 30
    assert list(index.vectors()) == []


def test_what_is_damaged_or_senseless_is_named(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add([Document("odd", "a text like no other")])
    with pytest.raises(InputError, match="batch_size"):
        index.vectors(batch_size=0)
    (file,) = (index.path / "documents.lance" / "data").iterdir()
    file.write_bytes(file.read_bytes().replace(b"like no other", b"like mo other"))
    with pytest.raises(DataError, match="'odd' is damaged"):
        list(Index.open(index.path).vectors())
    index.close()
    with pytest.raises(InputError, match="closed"):
        index.vectors()
