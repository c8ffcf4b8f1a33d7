"""What an index does beside adding and searching: upsert, listing, hybrid search, versions, compaction, passages."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from index.doubles import HashingStudent, brute_force, numbered
from rabtriever.bm25 import Bm25
from rabtriever.data import Document
from rabtriever.errors import DataError, InputError
from rabtriever.fusion import checked_hybrid, fuse_ranks, fuse_scores, parse_hybrid
from rabtriever.index import Counts, Index, Passages
from rabtriever.index.locks import exclusive
from rabtriever.index.passages import cut


@pytest.fixture
def student() -> HashingStudent:
    return HashingStudent()


@pytest.fixture
def index(tmp_path: Path, student: HashingStudent) -> Index:
    return Index.create(tmp_path / "index", student)


def test_upsert_is_all_or_nothing(index: Index) -> None:
    index.add(numbered(0, 5))
    version = index.version
    assert index.upsert([("d2", "other"), *numbered(3, 4), ("new", "new")]) == Counts(1, 1, 1)
    assert index.version == version + 1
    with pytest.raises(DataError, match="same id"):
        index.upsert([("x", "1"), ("x", "2")])
    assert (len(index), index.version) == (6, version + 1)
    assert index.upsert([]) == Counts()


def test_documents_are_listed_in_the_order_written(index: Index) -> None:
    index.add(numbered(0, 30), batch_size=7)
    index.add([("d3", "changed")])
    names = [f"d{i}" for i in range(30) if i != 3] + ["d3"]
    assert [document.id for document in index.documents()] == names
    assert [document.id for document in index.documents(start=4, limit=3)] == names[4:7]
    assert [document.id for document in index.documents("number < 4")] == ["d0", "d1", "d2"]
    assert list(index.documents("number < 4", limit=0)) == []
    with pytest.raises(InputError, match="start must be"):
        index.documents(start=-1)


def test_reading_goes_on_where_the_former_version_was_read(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a small change only the changed rows are read, and hits are as if all had been."""
    documents = numbered(0, 200)
    index.add(documents)
    index.search("q")
    whole = index._snapshot.parts[0].segment
    for step in range(4):
        index.add([Document(f"d{step}", f"changed {step}"), Document(f"e{step}", "new")])
        index.delete(f"d{100 + step}")
        index.search("q")
    parts = index._snapshot.parts
    assert (parts[0].segment is whole, len(parts[1].rows)) == (True, 8)
    fresh = Index.open(index.path, HashingStudent())
    for query in ("q", "r"):
        assert index.search(query, k=500) == fresh.search(query, k=500)
        assert index.search(query, k=5, filter="number > 150") == fresh.search(query, k=5, filter="number > 150")
    index.compact()
    assert index.search("q", k=500) == fresh.search("q", k=500)
    assert index._snapshot.parts[0].segment is whole


def test_hybrid_search_adds_a_share_of_bm25_to_the_log_odds(index: Index) -> None:
    documents = numbered(0, 200)
    index.add(documents)
    index.add([Document("word", "a zebra crosses the street"), Document("words", "zebra after zebra in the street")])
    texts = {hit.id: hit.content for hit in index.search("zebra", k=300)}
    for query in ("the zebra", "document 17", "street"):
        student = {hit.id: hit.score for hit in index.search(query, k=300)}
        words = dict(zip(texts, map(float, next(Bm25(list(texts.values())).scores([query]))), strict=True))
        for hybrid, weight in ((True, 0.5), (2, 2.0), (0.3, 0.3)):
            hits = index.search(query, k=60, hybrid=hybrid)
            sums = sorted((student[id_] + weight * words[id_] for id_ in texts), reverse=True)
            got = [student[hit.id] + weight * words[hit.id] for hit in hits]
            assert got == pytest.approx(sums[:60], abs=1e-4)
        assert index.search(query, k=60, hybrid=0) == index.search(query, k=60)


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "rank", None, [1]])
def test_what_is_no_way_to_fuse_is_refused(index: Index, wrong: object) -> None:
    with pytest.raises(InputError, match="hybrid must be"):
        index.search("q", hybrid=wrong)  # type: ignore[call-overload]


def test_scores_are_added_and_equal_sums_are_the_students() -> None:
    student = {"a": 1.0, "b": 3.0, "c": 2.0}
    assert fuse_scores(student, {}, 0.5) == ["b", "c", "a"]
    assert fuse_scores(student, {"a": 4.0}, 0.5) == ["b", "a", "c"]
    assert fuse_scores(student, {"a": 4.1}, 0.5) == ["a", "b", "c"]
    assert (parse_hybrid("ranks"), parse_hybrid("1"), checked_hybrid(True)) == ("ranks", 1.0, 0.5)
    for text in ("nan", "-2", "rank", ""):
        with pytest.raises(InputError, match="hybrid must be"):
            parse_hybrid(text)


@pytest.mark.parametrize("hybrid", [1000, "ranks"])
def test_hybrid_search_finds_what_shares_words(index: Index, hybrid: int | Literal["ranks"]) -> None:
    documents = numbered(0, 200)
    index.add([*documents, Document("word", "a zebra crosses the street", metadata={"number": 7})])
    plain = {hit.id: hit for hit in index.search("the zebra", k=300)}
    hits = index.search("the zebra", k=10, hybrid=hybrid)
    assert "word" in {hit.id for hit in hits[:2]}
    assert all(hit == plain[hit.id] for hit in hits)  # scores stay the student's
    assert [hit.id for hit in index.search("zebra", k=1, hybrid=hybrid, filter="number < 5")] != ["word"]
    assert len(index.search("the zebra", k=300, hybrid=hybrid)) == 201
    unknown = index.search("xylophone", k=5, hybrid=hybrid)
    assert [hit.id for hit in unknown] == [hit.id for hit in index.search("xylophone", k=5)]
    assert index.search(["the zebra", "xylophone"], k=10, hybrid=hybrid)[0] == hits


def test_bm25_alone_orders_by_words_and_scores_by_the_student(index: Index, student: HashingStudent) -> None:
    index.add([Document("word", "zebra"), Document("words", "a zebra and many more words about it")])
    hits = index.search("zebra", k=10, bm25=True)
    assert [hit.id for hit in hits] == ["word", "words"]  # the others share no word with it
    scores = {hit.id: hit.score for hit in index.search("zebra", k=300)}
    assert [hit.score for hit in hits] == [scores["word"], scores["words"]]
    assert [hit.id for hit in index.search("zebra", k=1, bm25=True)] == ["word"]
    assert index.search("xylophone", bm25=True) == []
    with pytest.raises(InputError, match="leaves the student out"):
        index.search("zebra", bm25=True, hybrid=True)


def test_ranks_are_fused_by_reciprocals() -> None:
    scores = {name: -float(ord(name)) for name in "abc"}
    assert fuse_ranks([["a", "b", "c"], ["c", "b", "a"]], scores) == ["a", "c", "b"]
    assert fuse_ranks([["a"], []], scores) == ["a"]


def test_nothing_fits_is_an_answer(index: Index) -> None:
    index.add(numbered(0, 50))
    hits = index.search("q", k=50)
    half = hits[20].probability
    assert index.search("q", k=50, threshold=half) == [hit for hit in hits if hit.probability >= half]
    assert index.search("q", k=50, threshold=0) == hits
    best = max(hit.probability for hit in hits)
    if best < 1:
        assert index.search("q", threshold=1) == []
    for bad in (-0.1, 1.5, "high", True, float("nan")):
        with pytest.raises(InputError, match="threshold must be"):
            index.search("q", threshold=bad)  # type: ignore[arg-type]


def test_versions_come_back(index: Index) -> None:
    index.add(numbered(0, 10))
    version, hits = index.version, index.search("q")
    index.delete([f"d{i}" for i in range(5)])
    index.add([("x", "y")])
    versions = index.versions()
    assert [version.number for version in versions] == sorted({version.number for version in versions})
    assert versions[-1].number == index.version
    newest = index.restore(version)
    assert (newest > versions[-1].number, len(index), index.search("q")) == (True, 10, hits)
    assert index.add(numbered(0, 12)) == Counts(added=2, unchanged=10)
    with pytest.raises(InputError, match="has no version 999"):
        index.restore(999)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collector: what is let go of must be let go of at once, not some time later."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("how", ["closed", "left", "dropped", "failed", "reindexed"])
def test_a_reader_lets_go_at_once(index: Index, student: HashingStudent, how: str, uncollected: None) -> None:
    index.add(numbered(0, 3))
    if how == "left":
        with Index.open(index.path, student) as reader:
            assert reader.search("q", 1)
    else:
        reader = Index.open(index.path, student)
        assert reader.search("q", 1)
    if how == "failed":
        with pytest.raises(InputError, match="no document"):
            reader.get("nobody")
    if how == "reindexed":
        reader.reindex(HashingStudent(fingerprint="another"))
        index = Index.open(index.path)
    elif how == "closed":
        reader.close()
        reader.close()
        with pytest.raises(InputError, match="has been closed"):
            reader.search("q")
    if how not in ("closed", "left"):
        del reader
    index.delete("d0")
    cleaned = index.compact()
    assert (cleaned.versions, cleaned.held) == (1, 1)  # the one that is read by the index itself


def test_compaction_keeps_what_readers_need(index: Index, student: HashingStudent) -> None:
    """A reader held open across a hundred commits and compactions; it reads its texts only at the end."""
    index.add(numbered(0, 20))
    reader = Index.open(index.path, HashingStudent())
    hits = index.search("q", k=20)
    for step in range(100):
        index.upsert([(f"d{step % 20}", f"step {step}")])
        if step % 40 == 39:
            index.compact()
    cleaned = index.compact()
    assert cleaned.held > 0
    assert reader.search("q", k=20) == hits
    assert [document.text for document in reader.documents()][:2] == ["text number 0", "text number 1"]
    reader.refresh()
    assert reader.search("q", k=20) == index.search("q", k=20)
    del reader
    cleaned = index.compact()
    assert (cleaned.versions, cleaned.held) == (len(index.versions()), 1)
    assert cleaned.versions == 1
    assert index.check().clean
    assert [len(list((index.path / "locks").glob("reader-*")))] == [1]


def test_writers_take_turns(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabtriever.index.locks._WAIT", 0.1)
    with exclusive(index.path):
        for write in (
            lambda: index.add([("a", "b")]),
            lambda: index.upsert([("a", "b")]),
            lambda: index.delete("a"),
            index.compact,
        ):
            with pytest.raises(InputError, match="another process is writing") as caught:
                write()
            assert caught.value.code == "locked"
        assert index.search("q") == []  # readers go on
    held = threading.Event()

    def hold() -> None:
        with exclusive(index.path):
            held.set()
            threading.Event().wait(0.2)

    monkeypatch.setattr("rabtriever.index.locks._WAIT", 30)
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert index.add([("a", "b")]) == Counts(added=1)
    thread.join()


def test_a_folder_that_cannot_be_written_is_read(index: Index) -> None:
    index.add(numbered(0, 5))
    hits = index.search("q")
    locks = index.path / "locks"
    for path in locks.iterdir():
        path.unlink()
    locks.rmdir()
    locks.write_text("stands in for a folder that may not be written")
    reader = Index.open(index.path, HashingStudent())
    assert reader.search("q") == hits
    with pytest.raises(InputError, match="cannot lock the index"):
        reader.add([("a", "b")])


def test_metadata_of_any_kind_and_of_changing_type(index: Index) -> None:
    values = [1, "1", 1.0, True, None, [1, "a"], {"deep": {"er": []}}, "", -0.0, 10**30, "é\u0301🤖\u202e\x00", [[]]]
    index.add([Document(f"v{i}", "text", metadata={"m": value, "é\u0000": i}) for i, value in enumerate(values)])
    for i, value in enumerate(values):
        assert index.get(f"v{i}").metadata == {"m": value, "é\u0000": i}
    found = {hit.id for hit in index.search("q", k=20, filter="m = 1")}
    assert found == {"v0", "v2", "v5"}
    assert {hit.id for hit in index.search("q", k=20, filter="m = true")} == {"v3"}
    assert {hit.id for hit in index.search("q", k=20, filter="m in ('1', 'a')")} == {"v1", "v5"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", []),
        ("x" * 20, []),
        ("x" * 21, [(0, 20), (15, 21)]),
        ("one two three four five six seven", [(0, 19), (14, 33)]),
    ],
)
def test_passages_overlap_and_cover_everything(content: str, expected: list[tuple[int, int]]) -> None:
    assert cut(content, Passages(characters=20, overlap=5)) == expected
    assert cut(content, None) == []


def test_a_long_document_scores_as_its_best_passage(tmp_path: Path) -> None:
    how = Passages(characters=40, overlap=10)
    student = HashingStudent()
    index = Index.create(tmp_path / "index", student, passages=how)
    long = " ".join(f"word{i}" for i in range(60))
    documents = [Document("long", long, "Title"), *numbered(0, 30)]
    index.add(documents, batch_size=7)
    spans = cut(documents[0].content, how)
    assert len(spans) > 10
    assert student.encoded[: len(spans)] == [documents[0].content[start:end] for start, end in spans]
    for query in ("a", "b", "c", "d"):
        vector = student.encode_query([query])[0].astype("float64")
        scores = student.encode_document([documents[0].content[a:b] for a, b in spans]).astype("float64") @ vector
        hits = index.search(query, k=31)
        (hit,) = [hit for hit in hits if hit.id == "long"]
        assert hit.score == pytest.approx(scores.max() + student.bias, rel=1e-5)
        assert hit.span == spans[int(scores.argmax())]
        assert [hit.id for hit in hits if hit.id != "long"] == brute_force(index, student, documents[1:], query, 30)
        assert len(hits) == 31
    index.search("a", k=31, rerank=31)
    _, texts = student.reranker.calls[-1]
    assert documents[0].content[slice(*hit.span)] in texts or len(max(texts, key=len)) <= 40
    index.add([Document("long", long, "Title", {"m": 1})])  # its vectors move along
    assert index.search("d", k=31)[0:] != []
    assert index.check().clean
    fresh = Index.open(index.path, HashingStudent())
    assert fresh.search("d", k=31) == index.search("d", k=31)
    assert index.add([Document("long", "short")]).updated == 1
    assert next(hit for hit in index.search("d", k=31) if hit.id == "long").span is None
    with pytest.raises(InputError, match="cuts documents into passages otherwise"):
        Index.create(index.path, HashingStudent(), exist_ok=True, passages=Passages(characters=50))
    assert Index.create(index.path, HashingStudent(), exist_ok=True).description.passages == how
