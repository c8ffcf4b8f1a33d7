"""An index's documents and vectors as a Parquet file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.data import Document
from rabtriever.errors import InputError
from rabtriever.export import export_parquet
from rabtriever.index import Index, Passages


def vectors_of(table: pa.Table) -> np.ndarray:
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def test_every_document_is_there_with_its_vector(tmp_path: Path) -> None:
    student = HashingStudent()
    index = Index.create(tmp_path / "index", student)
    documents = [*numbered(0, 30), Document("odd", "\u05e9\u05dc\u05d5\u05dd \x00", metadata={"a": ["é", None]})]
    index.add(documents)
    index.delete(["d3"])
    export_parquet(tmp_path / "index", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), student.dimension)
    rows = {row["id"]: (place, row) for place, row in enumerate(table.drop(["vector"]).to_pylist())}
    kept = [document for document in documents if document.id != "d3"]
    assert rows.keys() == {document.id for document in kept}
    expected = student.encode_document([document.content for document in kept])
    for document, vector in zip(kept, expected, strict=True):
        place, row = rows[document.id]
        assert np.array_equal(vectors_of(table)[place], vector)
        assert (row["passage"], row["title"]) == (0, document.title)
        assert row["text"] == document.text
        assert json.loads(row["metadata"]) == document.metadata
    facts = json.loads(table.schema.metadata[b"rabtriever"])
    assert facts["bias"] == student.bias
    assert facts["fingerprint"] == student.fingerprint


def test_the_best_passage_of_each_document_ranks_as_the_index_does(tmp_path: Path) -> None:
    student = HashingStudent()
    index = Index.create(tmp_path / "index", student, passages=Passages(characters=30, overlap=5))
    index.add([(f"d{i}", f"the document with number {i} says a few things. " * (i % 4 + 1)) for i in range(12)])
    export_parquet(tmp_path / "index", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert len(table) > 12
    scores: dict[str, float] = {}
    found = vectors_of(table) @ student.encode_query(["what now"])[0] + np.float32(student.bias)
    for name, score in zip(table["id"].to_pylist(), found, strict=True):
        scores[name] = max(score, scores.get(name, -np.inf))
    hits = index.search("what now", k=12)
    assert [hit.id for hit in hits] == sorted(scores, key=lambda name: -scores[name])
    assert np.allclose([hit.score for hit in hits], [scores[hit.id] for hit in hits], atol=1e-4)


def test_a_former_export_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    Index.create(tmp_path / "index", HashingStudent())
    for _ in range(2):  # an empty index is an index
        export_parquet(tmp_path / "index", tmp_path / "out.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "mine.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    for name in ("mine.parquet", "text.parquet", "index"):
        with pytest.raises(InputError, match="is no former export"):
            export_parquet(tmp_path / "index", tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "mine.parquet", "out.parquet", "text.parquet"]


def test_without_an_index_there_is_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        export_parquet(tmp_path / "none", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
