"""Flipped bytes, torn files and wrong rows: found, named, and mended without losing the rest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.data import Document
from rabtriever.errors import DataError, InputError
from rabtriever.index import Index
from rabtriever.index.rows import Row, to_table
from rabtriever.index.store import Store


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 40), batch_size=20)
    return index


def _flip(path: Path, old: bytes, at: int = 0) -> None:
    data = bytearray(path.read_bytes())
    place = data.index(old) + at
    data[place] ^= 0x10
    path.write_bytes(data)


def _data_file(index: Index, holding: bytes) -> Path:
    files = sorted((index.path / "documents.lance" / "data").iterdir())
    return next(file for file in files if holding in file.read_bytes())


def _vector_of(number: int) -> bytes:
    document = numbered(number, number + 1)[0]
    return bytes(HashingStudent().encode_document([document.content])[0].tobytes())


def test_a_clean_index_is_clean(index: Index) -> None:
    report = index.check()
    assert (report.clean, report.documents, report.version, report.cache) == (True, 40, index.version, "none")
    assert Index.repair(index.path, HashingStudent()).encoded == ()


def test_a_flipped_bit_in_a_vector_is_named_by_search_and_check_and_mended(index: Index) -> None:
    before = index.search("q", k=40)
    _flip(_data_file(index, _vector_of(7)), _vector_of(7), at=9)
    damaged = Index.open(index.path, HashingStudent())
    with pytest.raises(DataError, match="vector of the document 'd7' is damaged") as caught:
        damaged.search("q")
    assert "rabtriever repair" in caught.value.hint
    (problem,) = damaged.check().problems
    assert (problem.kind, problem.id) == ("vector", "d7")
    student = HashingStudent()
    repaired = Index.repair(index.path, student)
    assert (repaired.encoded, repaired.removed) == (("d7",), ())
    assert len(student.encoded) == 1
    mended = Index.open(index.path, HashingStudent())
    assert mended.check().clean
    assert mended.search("q", k=40) == before


def test_a_flipped_bit_in_a_text_is_never_handed_out(index: Index) -> None:
    index.add([Document("odd", "a text like no other", metadata={"room": "hall"})])
    _flip(_data_file(index, b"a text like no other"), b"a text like no other", at=3)
    damaged = Index.open(index.path, HashingStudent())
    for read in (lambda: damaged.get("odd"), lambda: damaged.search("q", k=41), lambda: list(damaged.documents())):
        with pytest.raises(DataError, match="text or metadata of the document 'odd' is damaged"):
            read()
    assert damaged.get("d3").id == "d3"  # the others are read as ever
    repaired = Index.repair(index.path, HashingStudent())
    assert (repaired.encoded, repaired.removed) == ((), ("odd",))
    assert repaired.kept_in is not None
    assert json.loads(repaired.kept_in.read_text())["id"] == "odd"
    mended = Index.open(index.path, HashingStudent())
    assert (mended.check().clean, len(mended)) == (True, 40)
    assert mended.add([Document("odd", "a text like no other", metadata={"room": "hall"})]).added == 1


def test_any_flipped_byte_is_found_or_harmless(index: Index) -> None:
    """Every part of a data file in turn; what is read is right, or there is one sentence."""
    index.compact()
    truth = index.search("q", k=40)
    (file,) = (index.path / "documents.lance" / "data").iterdir()
    good = file.read_bytes()
    for place in np.random.default_rng(0).choice(len(good), 25, replace=False):
        bad = bytearray(good)
        bad[place] ^= 0x40
        file.write_bytes(bad)
        try:
            damaged = Index.open(index.path, HashingStudent())
            assert damaged.search("q", k=40) == truth
        except InputError as error:
            assert "\n" not in error.message
            assert not damaged.check().clean
    file.write_bytes(good)
    assert Index.open(index.path, HashingStudent()).search("q", k=40) == truth


def test_a_torn_commit_is_left_for_the_one_before(index: Index) -> None:
    before = index.search("q", k=40)
    version = index.version
    index.add(numbered(40, 50))
    newest = min((index.path / "documents.lance" / "_versions").glob("*.manifest"), key=lambda path: path.name)
    newest.write_bytes(newest.read_bytes()[:40])
    with pytest.raises(DataError):
        Index.open(index.path, HashingStudent()).check()
    repaired = Index.repair(index.path, HashingStudent())
    assert repaired.rolled_back == 1
    mended = Index.open(index.path, HashingStudent())
    assert (len(mended), mended.version, mended.check().clean) == (40, version, True)
    assert mended.search("q", k=40) == before
    assert mended.add(numbered(0, 50)).added == 10


def test_nothing_readable_is_said_and_left_alone(index: Index) -> None:
    files = {file: file.read_bytes() for file in (index.path / "documents.lance" / "data").iterdir()}
    for file, data in files.items():
        file.write_bytes(data[: len(data) // 2])
    manifests = sorted((index.path / "documents.lance" / "_versions").iterdir())
    Index.open(index.path, HashingStudent())
    with pytest.raises(DataError, match="cannot read|damaged"):
        Index.open(index.path, HashingStudent()).search("q")
    report = Index.open(index.path, HashingStudent()).check()
    assert [problem.kind for problem in report.problems] == ["table"]
    for file, data in files.items():
        file.write_bytes(data)
    assert sorted((index.path / "documents.lance" / "_versions").iterdir()) == manifests
    assert Index.open(index.path, HashingStudent()).check().clean


def test_wrong_rows_written_by_others_are_found_and_taken_out(index: Index) -> None:
    """Rows that this package never writes: an id twice, an empty id, a vector that is not finite."""
    store = Store(index.path, "documents", 16)
    vector, bad = np.ones((1, 16), np.float32), np.full((1, 16), np.inf, np.float32)
    rows = [Row(Document("d3", "again"), "{}", "x", vector), Row(Document("", "nobody"), "{}", "x", vector)]
    rows.append(Row(Document("inf", "endless"), "{}", "x", bad))
    with store.writing() as table:
        table.add(to_table(rows, table.version + 1, 16))
    found = Index.open(index.path, HashingStudent())
    assert sorted(problem.kind for problem in found.check().problems) == ["duplicate", "id", "vector"]
    repaired = Index.repair(index.path, HashingStudent())
    assert (repaired.encoded, repaired.removed) == (("inf",), ("",))
    mended = Index.open(index.path, HashingStudent())
    assert (mended.check().clean, len(mended)) == (True, 41)
    assert mended.get("d3").text == "again"  # the newer of the two
    assert pa.table  # rows are Arrow throughout
