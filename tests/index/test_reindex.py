from __future__ import annotations

import gc
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
