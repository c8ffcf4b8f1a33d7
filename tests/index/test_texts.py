"""Copies of documents come back as they were written, or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.doubles import HashingStudent, numbered
from rabtriever.data import Document
from rabtriever.index import Index
from rabtriever.index.records import text_hash, write_metadata
from rabtriever.index.rows import DOCUMENT_COLUMNS, Found, Row, to_table
from rabtriever.index.snapshot import Snapshot
from rabtriever.index.texts import ENDS, LINES, Texts, texts_writer

_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
_DOCUMENTS = st.lists(
    st.builds(
        Document,
        id=_TEXT.filter(str.strip),
        text=_TEXT,
        title=_TEXT,
        metadata=st.dictionaries(_TEXT, _TEXT | st.integers(-(2**70), 2**70) | st.none(), max_size=2),
    ),
    min_size=1,
    max_size=5,
)
_SPANS = ((0, 1), (1, 2))


def _written(documents: Sequence[Document]) -> tuple[np.ndarray, np.ndarray]:
    rows = [
        Row(
            document,
            write_metadata(document),
            text_hash(document.content),
            np.ones((2, 3), np.float32),
            ((0, 1), (1, 2)),
        )
        for document in documents
    ]
    with tempfile.TemporaryDirectory() as name:
        with texts_writer(Path(name)) as write:
            for start in range(0, len(rows), 2):
                table = to_table(rows[start : start + 2], 1, 3)
                for batch in table.select(DOCUMENT_COLUMNS).to_batches():
                    write(batch)
        return np.fromfile(Path(name) / LINES, np.uint8), np.fromfile(Path(name) / ENDS, np.int64).reshape(-1, 2)


@given(_DOCUMENTS)
def test_documents_come_back(documents: list[Document]) -> None:
    texts = Texts(*_written(documents))
    assert len(texts) == len(documents)
    expected = [Found(document, text_hash(document.content), _SPANS) for document in documents]
    assert [texts.get(row) for row in range(len(texts))] == expected


@given(_DOCUMENTS, st.data())
def test_a_flipped_bit_is_never_handed_out(documents: list[Document], data: st.DataObject) -> None:
    lines, ends = _written(documents)
    whole = [Texts(lines, ends).get(row) for row in range(len(ends))]
    place = data.draw(st.integers(0, len(lines) - 1))
    lines[place] ^= 1 << data.draw(st.integers(0, 7))
    damaged = Texts(lines, ends)
    hit = int(np.searchsorted(ends[:, 0], place, side="right"))
    for row, expected in enumerate(whole):
        assert damaged.get(row) in ([expected, None] if row == hit else [expected])


def test_no_documents(tmp_path: Path) -> None:
    with texts_writer(tmp_path) as write:
        write(pa.record_batch({name: pa.array([], pa.string()) for name in DOCUMENT_COLUMNS}))
    assert (tmp_path / LINES).stat().st_size == (tmp_path / ENDS).stat().st_size == 0


def test_cached_hits_need_no_question_to_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 200))
    hits = index.search("q", k=30)
    index.accelerate()
    asked: list[int] = []
    stream = Snapshot.stream

    def counted(self: Snapshot, numbers: Sequence[int]) -> Iterator[Found]:
        asked.extend(numbers)
        return stream(self, numbers)

    monkeypatch.setattr(Snapshot, "stream", counted)
    assert index.search("q", k=30) == hits
    assert asked == []
    index.upsert([Document(hits[3].id, "another text")])
    assert len(index.search("q", k=200)) == 200
    assert len(asked) == 1  # the one that the cache does not hold


@pytest.mark.parametrize("how", ["flip", "cut"])
def test_a_damaged_copy_is_read_from_the_table(tmp_path: Path, how: str) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 200))
    hits = index.search("q", k=200)
    index.accelerate()
    (file,) = index.path.glob(f"cache/*/{LINES}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data if how == "flip" else data[: len(data) // 2])
    reader = Index.open(index.path, HashingStudent())
    assert reader.search("q", k=200) == hits
    assert reader.uncached == 0  # the vectors are used all the same
    assert [problem.kind for problem in reader.check().problems] == ["cache"]
