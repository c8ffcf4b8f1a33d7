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
from rabtriever.index import Hit, Index
from rabtriever.index.rows import Row, to_table
from rabtriever.index.seal import Seals, version_of
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


def _newest_manifest(index: Index) -> Path:
    return max((index.path / "documents.lance" / "_versions").glob("*.manifest"), key=version_of)


def _seal(index: Index) -> Path:
    return index.path / "seals" / "documents.json"


def _delete_some(index: Index) -> tuple[list[Hit], list[Path]]:
    """Delete from both of the table's files; what is found then, and the files that say which rows are deleted."""
    index.delete(["d3", "d7"])
    index.delete(["d11", "d25"])
    lists = sorted((index.path / "documents.lance" / "_deletions").iterdir())
    sealed = json.loads(_seal(index).read_text())["files"]
    # One of them has been replaced by the second deletion, and no longer counts.
    assert len(sealed) == len(lists) == 3
    return index.search("q", k=40), [path for path in lists if f"_deletions/{path.name}" in sealed]


def test_damage_to_what_says_which_rows_there_are_is_named_and_mended_from_a_copy(index: Index) -> None:
    """Lance reads these as they are: a flipped bit brings a deleted document back, or ends the process."""
    truth, lists = _delete_some(index)
    rng = np.random.default_rng(0)
    for file in [*lists, _newest_manifest(index)]:
        good = file.read_bytes()
        bad = [None, b"", good[: len(good) // 2], good[:-1]]
        for place in rng.choice(len(good), 20, replace=False):
            flipped = bytearray(good)
            flipped[place] ^= 1 << rng.integers(8)
            bad.append(bytes(flipped))
        for content in bad:
            file.unlink() if content is None else file.write_bytes(content)
            with pytest.raises(DataError, match=f"{file.name} is {'missing' if content is None else 'damaged'}"):
                Index.open(index.path, HashingStudent())
            with pytest.raises(DataError, match=file.name):  # in a process that has it open as well
                index.refresh()
                index.add(numbered(90, 91))
            repaired = Index.repair(index.path, HashingStudent())
            assert (repaired.restored, repaired.rolled_back, repaired.removed) == (
                (f"{file.parent.name}/{file.name}",), 0, (),
            )  # fmt: skip
            assert file.read_bytes() == good
        assert Index.open(index.path, HashingStudent()).search("q", k=40) == truth


def test_a_damaged_seal_accuses_nobody(index: Index) -> None:
    truth, _ = _delete_some(index)
    good = _seal(index).read_bytes()
    for place in np.random.default_rng(0).choice(len(good), 60, replace=False):
        flipped = bytearray(good)
        flipped[place] ^= 0x04
        _seal(index).write_bytes(flipped)
        assert Index.open(index.path, HashingStudent()).search("q", k=40) == truth
    _seal(index).unlink()  # as in an index of an older release
    old = Index.open(index.path, HashingStudent())
    assert (old.search("q", k=40), old.check().clean) == (truth, True)
    old.add(numbered(50, 51))
    assert json.loads(_seal(index).read_text())["version"] == old.version


def test_what_was_damaged_before_the_next_commit_is_not_sealed_as_right(index: Index) -> None:
    _, lists = _delete_some(index)
    lists[0].write_bytes(b"\0" * 8 + lists[0].read_bytes()[8:])
    seals = Seals(index.path, "documents")
    (index.path / "documents.lance" / "_versions" / f"{2**64 - 2 - index.version}.manifest").write_bytes(
        _newest_manifest(index).read_bytes()
    )
    seals.write()  # of a newer version, which refers to the same files
    with pytest.raises(DataError, match=f"{lists[0].name} is damaged"):
        Seals(index.path, "documents").verify()


def test_a_commit_that_was_not_sealed_any_more_is_taken_as_it_is(index: Index) -> None:
    """The process was killed between the two."""
    truth, _ = _delete_some(index)
    sealed = _seal(index).read_bytes()
    index.add(numbered(60, 61))
    index.compact()
    _seal(index).write_bytes(sealed)  # of an earlier version, whose files are gone
    later = Index.open(index.path, HashingStudent())
    assert (len(later), later.check().clean) == (len(truth) + 1, True)


def test_a_torn_commit_is_left_for_the_one_before(index: Index) -> None:
    before = index.search("q", k=40)
    version = index.version
    index.add(numbered(40, 50))
    newest = _newest_manifest(index)
    newest.write_bytes(newest.read_bytes()[:40])
    _seal(index).unlink()  # the power failed before it was written
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
