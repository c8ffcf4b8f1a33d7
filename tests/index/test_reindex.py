from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import pytest

from index.doubles import HashingStudent, brute_force, numbered
from rabtriever.data import Document
from rabtriever.errors import InputError, MismatchError
from rabtriever.index import Index


class Other(HashingStudent):
    """Another model: another width, other vectors."""

    def encode_document(self, texts: object) -> np.ndarray:
        return -super().encode_document(texts)  # type: ignore[arg-type]


def _other() -> Other:
    return Other(dimension=24, fingerprint="student-2", bias=0.5)


def test_an_index_moves_to_another_model_while_others_use_it(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 60))
    reader: Index | None = Index.open(index.path, HashingStudent())
    writer: Index | None = Index.open(index.path, HashingStudent())
    assert reader is not None
    assert writer is not None
    hits = reader.search("q", k=60)
    other = _other()
    encode, writes = other.encode_document, [lambda: writer.add([("d3", "changed")]), lambda: writer.delete("d5")]

    def encoding(texts: object) -> np.ndarray:
        while writes:
            writes.pop()()  # others write while this encodes
        return encode(texts)

    other.encode_document = encoding  # type: ignore[method-assign]
    index.reindex(other)
    assert not writes
    expected = [d for d in numbered(0, 60) if d.id not in ("d3", "d5")] + [Document("d3", "changed")]
    assert len(index) == len(expected) == 59
    scores = np.stack([-HashingStudent(24).encode_document([d.content])[0] for d in expected]).astype(np.float64)
    order = np.argsort(-(scores @ other.encode_query(["q"])[0].astype(np.float64)))
    assert [hit.id for hit in index.search("q", k=10)] == [expected[i].id for i in order[:10]]
    assert reader.search("q", k=60) == hits  # until it refreshes
    with pytest.raises(MismatchError, match="another model"):
        reader.refresh()
    with pytest.raises(MismatchError, match="moved to another model"):
        writer.add([("late", "comer")])
    with pytest.raises(MismatchError):
        Index.open(index.path, HashingStudent())
    again = Index.open(index.path, _other())
    assert again.search("q", k=59) == index.search("q", k=59)
    assert again.check().clean
    index.compact()
    assert reader.get("d4").id == "d4"  # its table stays as long as it is open
    assert len(list(index.path.glob("*.lance"))) == 2
    reader = writer = None
    gc.collect()  # the errors above still hold them
    index.compact()
    assert len(list(index.path.glob("*.lance"))) == 1
    with pytest.raises(InputError, match="of this model already"):
        index.reindex(_other())


def test_an_interrupted_move_changes_nothing_and_goes_on(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    documents = numbered(0, 600)
    index.add(documents)
    hits = index.search("q")
    other = _other()
    encode = other.encode_document

    def interrupted(texts: object) -> np.ndarray:
        if len(other.encoded) >= 512:
            raise KeyboardInterrupt
        return encode(texts)

    other.encode_document = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        index.reindex(other)
    assert index.search("q") == Index.open(index.path, HashingStudent()).search("q") == hits
    index.compact()  # leaves what was encoded alone
    second = _other()
    index.reindex(second)
    assert len(second.encoded) == 88
    assert len(index) == 600
    assert brute_force(index, HashingStudent(), documents, "q", 3) == [hit.id for hit in hits[:3]]
    assert index.check().clean


def _alike(name: str, **more: object) -> HashingStudent:
    """Students that read documents alike, and queries each in a way of its own."""
    return HashingStudent(fingerprint=name, documents_by="teacher-1", **more)  # type: ignore[arg-type]


def test_a_model_that_reads_documents_alike_takes_over_at_once(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", _alike("student-1"))
    index.add(numbered(0, 40))
    reader = Index.open(index.path, _alike("student-1"))
    stored = {path: path.read_bytes() for path in index.path.rglob("*") if path.is_file() and path.suffix != ".lock"}
    second = _alike("student-2", path=str(tmp_path / "second"))
    with pytest.raises(MismatchError, match="student-2") as refused:
        Index.open(index.path, second)
    assert "read documents alike" in (refused.value.hint or "")
    second.encode_query = lambda texts: -_alike("").encode_query(texts)  # type: ignore[method-assign]
    hits = reader.search("q", k=40)
    index.reindex(second)
    assert second.encoded == []
    changed = {path.name for path, content in stored.items() if path.read_bytes() != content}
    assert changed == {"index.json"}
    assert index.description.model.path == second.path
    assert [hit.id for hit in index.search("q", k=40)] == [hit.id for hit in hits[::-1]]
    assert Index.open(index.path, second).search("q") == index.search("q")
    with pytest.raises(MismatchError):
        Index.open(index.path, _alike("student-1"))
    reader.add([("late", "comer")])  # its vectors are those of both
    assert reader.search("q", k=40)[0] == hits[0]
    index.refresh()
    assert index.get("late").text == "comer"
    assert index.check().clean
    with pytest.raises(InputError, match="of this model already"):
        index.reindex(second)


def test_an_index_of_a_version_that_did_not_know_is_encoded_anew(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", _alike("student-1"))
    index.add(numbered(0, 4))
    content = json.loads((index.path / "index.json").read_text())
    del content["model"]["document_fingerprint"]
    content["format_version"] = 2
    (index.path / "index.json").write_text(json.dumps(content))
    assert Index.open(index.path, _alike("student-1")).count == 4
    second = _alike("student-2")
    with pytest.raises(MismatchError) as refused:
        Index.open(index.path, second)
    assert "alike" not in (refused.value.hint or "")
    index.reindex(second)
    assert len(second.encoded) == 4
    described = json.loads((index.path / "index.json").read_text())
    assert (described["format_version"], described["model"]["document_fingerprint"]) == (3, "teacher-1")
