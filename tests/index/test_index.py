from __future__ import annotations

import json
import random
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from index.doubles import HashingPrompt, HashingStudent, HashingTeacher, brute_force, numbered
from rabtriever.data import Document
from rabtriever.errors import DataError, InputError, MismatchError
from rabtriever.index import Counts, Index


@pytest.fixture
def student() -> HashingStudent:
    return HashingStudent()


@pytest.fixture
def index(tmp_path: Path, student: HashingStudent) -> Index:
    return Index.create(tmp_path / "skills.index", student)


def test_search_is_exact_and_scores_are_log_odds(index: Index, student: HashingStudent) -> None:
    documents = numbered(0, 500)
    assert index.add(documents) == Counts(added=500)
    queries = [f"query {i}" for i in range(10)]
    found = index.search(queries, k=7)
    for query, hits in zip(queries, found, strict=True):
        assert [hit.id for hit in hits] == brute_force(index, student, documents, query, 7)
        assert index.search(query, k=7) == hits  # to the last bit
        for hit in hits:
            document = documents[int(hit.id[1:])]
            score = student.encode_document([document.content])[0] @ student.encode_query([query])[0] + student.bias
            assert hit.score == pytest.approx(float(score), rel=1e-5, abs=1e-3)
            assert hit.probability == pytest.approx(1 / (1 + np.exp(-np.float64(hit.score))))
            assert (hit.text, hit.title, hit.metadata) == (document.text, document.title, document.metadata)
            assert hit.stage == "student"
    assert len(index.search("query", k=1000)) == 500


def test_unchanged_documents_are_not_encoded_again(index: Index, student: HashingStudent) -> None:
    index.add(numbered(0, 20), batch_size=8)
    version = index.version
    assert index.add(numbered(0, 20)) == Counts(unchanged=20)
    assert len(student.encoded) == 20
    assert index.version == version  # nothing was written


def test_a_changed_text_is_encoded_again_and_replaces_the_old_one(index: Index, student: HashingStudent) -> None:
    index.add(numbered(0, 5))
    assert index.add([("d2", "another text"), ("new", "text number 2")]) == Counts(added=1, updated=1)
    assert student.encoded[5:] == ["another text", "text number 2"]
    assert len(index) == 6
    assert index.get("d2") == Document("d2", "another text")
    expected = [d for d in numbered(0, 5) if d.id != "d2"] + [
        Document("d2", "another text"),
        Document("new", "text number 2"),
    ]
    assert [hit.id for hit in index.search("q")] == brute_force(index, student, expected, "q", 10)


def test_changed_metadata_is_stored_without_encoding(index: Index, student: HashingStudent) -> None:
    index.add(numbered(0, 5))
    before = {hit.id: hit.score for hit in index.search("q")}
    changed = [Document(d.id, d.text, d.title, {"number": -1}) for d in numbered(1, 4)]
    assert index.add([*changed, ("d9", "new")]) == Counts(added=1, updated=3)
    assert student.encoded[5:] == ["new"]
    assert {hit.id: hit.score for hit in index.search("q") if hit.id != "d9"} == before
    assert {hit.id for hit in index.search("q", filter="number = -1")} == {"d1", "d2", "d3"}


def test_every_kind_of_document(index: Index) -> None:
    counts = index.add(
        [
            Document("a", "one"),
            {"_id": "b", "text": "two", "room": "hall"},
            ("c", "three"),
            "find a sponge",
            {"id": "e", "text": ""},
        ]
    )
    assert counts == Counts(added=5)
    assert index.get("b").metadata == {"room": "hall"}
    assert index.add(["find a sponge"]) == Counts(unchanged=1)  # the same text is the same document
    assert index.search("q", k=10)


def test_texts_of_every_kind_come_back_as_they_were(index: Index) -> None:
    texts = ["", "nul \x00", "שלום", "🤖", "<|im_end|>", "'quoted'", "a\u2028b", "x" * 200_000]
    index.add(
        [Document(f"it's {i} é🤖\\%_", text, text, {text: [text, None]}) for i, text in enumerate(texts)], batch_size=3
    )
    for i, text in enumerate(texts):
        assert index.get(f"it's {i} é🤖\\%_") == Document(f"it's {i} é🤖\\%_", text, text, {text: [text, None]})
    assert index.add([Document("lone", "a\ud800b", metadata={"m": "\ud800"})]) == Counts(added=1)
    assert index.get("lone") == Document("lone", "a?b", metadata={"m": "\ud800"})
    assert index.add([Document("lone", "a\ud800b", metadata={"m": "\ud800"})]) == Counts(unchanged=1)
    assert index.delete([f"it's {i} é🤖\\%_" for i in range(len(texts))] + ["\ud800", "'; drop"]) == len(texts)
    assert len(index) == 1


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        ([("a", "1"), ("b", "2"), ("a", "1")], "documents 1 and 3 have the same id 'a'"),
        ([("a", "1"), ("", "2")], "document 2"),
        ([("a", "1"), Document("  ", "2")], "document 2"),
        ([Document("a\ud800", "2")], "lone surrogate"),
        ([{"text": "no id"}], "document 1"),
        ([{"id": "a"}], "document 1"),
        ([("a", 5)], "document 1"),
        ([17], "document 1: expected a Document"),
        ([Document("a", "1", metadata={"x": float("nan")})], "document 'a': the metadata cannot be written as JSON"),
        ([Document("a", "1", metadata={1: 2})], "document 'a': the metadata"),  # type: ignore[dict-item]
        ([Document("a", "1", metadata={"x": object()})], "document 'a': the metadata"),
    ],
)
def test_bad_documents_are_refused_by_place(index: Index, bad: list[object], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        index.add(bad)  # type: ignore[arg-type]
    assert problem in caught.value.message
    assert len(index) == 0


def test_what_came_before_an_error_is_kept_and_the_same_call_goes_on(index: Index, student: HashingStudent) -> None:
    documents = [*numbered(0, 10), Document("d3", "again")]
    with pytest.raises(DataError, match="documents 4 and 11"):
        index.add(iter(documents), batch_size=4)
    assert len(index) == 8
    assert index.add(documents[:10], batch_size=4) == Counts(added=2, unchanged=8)
    assert len(student.encoded) == 10


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_vectors_that_are_not_finite_are_refused_by_document(
    index: Index, student: HashingStudent, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    vectors = np.ones((3, 16), np.float32)
    vectors[1, 4] = value
    monkeypatch.setattr(student, "encode_document", lambda texts: vectors)
    with pytest.raises(DataError, match="document 'd1'"):
        index.add(numbered(0, 3))
    monkeypatch.setattr(student, "encode_document", lambda texts: vectors[:, :5])
    with pytest.raises(DataError, match=r"\(3, 5\) where \(3, 16\)"):
        index.add(numbered(0, 3))
    assert len(index) == 0


def test_delete_never_shifts_what_ids_mean(index: Index, student: HashingStudent) -> None:
    documents = numbered(0, 60)
    index.add(documents, batch_size=16)
    assert index.delete(d.id for d in documents[:40] if d.metadata["parity"] == "even") == 20
    assert index.delete("d1") == 1
    assert index.delete(["d1", "never there"]) == 0
    left = [d for d in documents[1:] if d.metadata["number"] >= 40 or d.metadata["parity"] == "odd"][1:]
    assert len(index) == len(left) == 39
    for document in left:
        assert index.get(document.id) == document
    for query in ("a", "b", "c"):
        hits = index.search(query, k=39)
        assert [hit.id for hit in hits] == brute_force(index, student, left, query, 39)
        assert all(hit.text == f"text number {hit.id[1:]}" for hit in hits)
    with pytest.raises(InputError, match="no document has the id 'd1'"):
        index.get("d1")


def test_reranked_hits_come_first_in_the_teachers_order(index: Index, student: HashingStudent) -> None:
    index.add(numbered(0, 50))
    plain = index.search("q", k=50)
    hits = index.search("q", k=8, rerank=5)
    assert [hit.stage for hit in hits] == ["teacher"] * 5 + ["student"] * 3
    assert {hit.id for hit in hits[:5]} == {hit.id for hit in plain[:5]}
    assert [hit.score for hit in hits[:5]] == sorted((hit.score for hit in hits[:5]), reverse=True)
    assert hits[5:] == plain[5:8]
    query, texts = student.reranker.calls[-1]
    assert (query, texts) == ("q", [index.get(hit.id).content for hit in plain[:5]])  # with their titles
    assert {h.id: h.score for h in hits[:5]} == dict(
        zip((h.id for h in plain[:5]), student.reranker.score(query, texts).tolist(), strict=True)
    )
    deep = index.search(["q", "r"], k=3, rerank=50)
    assert [len(found) for found in deep] == [3, 3]
    assert deep[0][0].score == max(student.reranker.score("q", [d.content for d in numbered(0, 50)]))
    student.reranker.score = lambda query, documents: np.full(len(documents), np.nan)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="not finite"):
        index.search("q", rerank=2)


def test_filters_apply_before_the_best_are_taken(index: Index, student: HashingStudent) -> None:
    documents = numbered(0, 200)
    index.add(documents)
    odd = [d for d in documents if d.metadata["parity"] == "odd" and d.metadata["number"] < 50]
    hits = index.search("q", k=10, filter="parity = 'odd' and number < 50")
    assert [hit.id for hit in hits] == brute_force(index, student, odd, "q", 10)
    assert index.search("q", filter="number > 1000") == []
    assert index.search("q", filter="number > 1000", rerank=5) == []
    with pytest.raises(InputError, match="column 1: no document has the field 'colour'.*number, parity"):
        index.search("q", filter="colour = 'red'")


def test_bad_questions_are_refused(index: Index) -> None:
    index.add(numbered(0, 3))
    for query in ("", " \n", ["good", ""], [3]):
        with pytest.raises(InputError, match="query"):
            index.search(query)  # type: ignore[call-overload]
    for k in (0, -1, 2.5, "3", None, True):
        with pytest.raises(InputError, match="k must be a whole number of at least 1"):
            index.search("q", k=k)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="rerank must be"):
        index.search("q", rerank=-1)
    with pytest.raises(InputError, match="batch_size"):
        index.add([], batch_size=0)
    with pytest.raises(InputError, match="an id must be a string"):
        index.delete([3])  # type: ignore[list-item]
    assert index.search([]) == []
    assert len(index.search("q", k=np.int64(2))) == 2  # type: ignore[call-overload]


def test_an_empty_index_finds_nothing(index: Index) -> None:
    assert len(index) == 0
    assert index
    assert index.search("q", rerank=5, filter="room = 'kitchen'") == []
    assert index.search(["q", "r"]) == [[], []]
    assert index.add([]) == Counts()
    assert index.delete([]) == 0
    with pytest.raises(InputError, match="column 8"):
        index.search("q", filter="room = ")


def test_it_is_all_there_after_reopening_even_elsewhere(index: Index, student: HashingStudent, tmp_path: Path) -> None:
    index.add(numbered(0, 30))
    index.delete("d3")
    hits = index.search("q", k=30)
    moved = tmp_path / "an other #place %20?"
    index.path.rename(moved)
    again = Index.open(moved, HashingStudent())
    assert len(again) == 29
    assert again.search("q", k=30) == hits
    assert again.add(numbered(0, 30)) == Counts(added=1, unchanged=29)
    described = json.loads((moved / "index.json").read_text())
    assert described["format_version"] == 3
    assert described["model"] == {
        "path": None,
        "relative_path": None,
        "fingerprint": "student-1",
        "prompt_hash": "prompt-1",
        "document_fingerprint": "student-1",
    }
    assert (described["dimension"], described["bias"]) == (16, -0.25)


def test_another_model_is_refused_with_a_sentence_that_says_which(index: Index) -> None:
    with pytest.raises(MismatchError, match=r"another model: .*student-1.* not models/new \(fingerprint student-2\)"):
        Index.open(index.path, HashingStudent(fingerprint="student-2", path="models/new"))
    other = HashingStudent(fingerprint="student-2", reranker=HashingTeacher(HashingPrompt("prompt-2")))
    with pytest.raises(MismatchError, match=r"another prompt: it expects prompt-1, but found prompt-2"):
        Index.open(index.path, other)
    with pytest.raises(MismatchError):
        Index.create(index.path, other, exist_ok=True)


def test_create_never_replaces_anything(index: Index, student: HashingStudent, tmp_path: Path) -> None:
    index.add(numbered(0, 3))
    with pytest.raises(InputError, match="exists already"):
        Index.create(index.path, student)
    assert len(Index.create(index.path, student, exist_ok=True)) == 3
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("x")
    for name in ("file", "folder"):
        with pytest.raises(InputError):
            Index.create(tmp_path / name, student, exist_ok=True)
    assert (tmp_path / "folder" / "mine").read_text() == "x"
    (tmp_path / "empty").mkdir()
    assert len(Index.create(tmp_path / "empty", student)) == 0
    assert len(Index.create(tmp_path / "deep" / "down", student)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"skills.index", "file", "folder", "empty", "deep"}


def test_folders_that_are_no_index_are_refused(index: Index, student: HashingStudent, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name, problem in {"absent": "does not exist", "file": "is a file", ".": "holds no index.json"}.items():
        with pytest.raises(InputError, match=f"is not an index: it {problem}"):
            Index.open(tmp_path / name, student)
    path = index.path / "index.json"
    good = json.loads(path.read_text())
    for text, problem in {
        '{"kind": ': "line 1, column 10",
        "[]": "index.json",
        json.dumps({**good, "format_version": 4}): "format_version is 4",
        json.dumps({**good, "format_version": 1}): "format_version is 1, and this Rabtriever reads 2 to 3",
        json.dumps({**good, "dimension": 0}): "dimension is wrong",
        json.dumps({**good, "surprise": 0}): "surprise is wrong",
        json.dumps({**good, "dimension": 17}): "16 numbers, index.json says 17",
    }.items():
        path.write_text(text)
        with pytest.raises(InputError) as caught:
            Index.open(index.path, student)
        assert problem in caught.value.message
    path.write_text(json.dumps(good))
    (index.path / "documents.lance").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"documents\.lance is missing"):
        Index.open(index.path, student)
    assert not (index.path / "documents.lance").exists()


def test_a_reader_keeps_its_version_until_it_refreshes(index: Index, student: HashingStudent) -> None:
    index.add(numbered(0, 20))
    reader = Index.open(index.path, student)
    unread = Index.open(index.path, student)  # has loaded nothing yet
    hits = reader.search("q", k=50)
    for start in range(20, 50, 10):
        index.add(numbered(start, start + 10))
        index.add([("d0", f"version {start}")])
        index.delete(f"d{start - 19}")
        assert (len(reader), reader.search("q", k=50)) == (20, hits)
        assert reader.get("d0").text == "text number 0"
    assert unread.search("q", k=50) == hits
    assert reader.refresh() == index.version
    assert (len(reader), reader.search("q", k=50)) == (47, index.search("q", k=50))
    assert reader.get("d0").text == "version 40"


def test_threads_search_while_one_writes(index: Index) -> None:
    index.add(numbered(0, 10))
    problems: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            hits = index.search("q", k=1000)
            if len(hits) % 10 or len({hit.id for hit in hits}) != len(hits):
                problems.append(f"{len(hits)} hits")

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for start in range(10, 60, 10):
        index.add(numbered(start, start + 10))
    done.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(index.search("q", k=1000)) == 60


def test_random_operations_equal_a_dictionary(index: Index, student: HashingStudent) -> None:
    rng, mirror = random.Random(7), dict[str, Document]()
    for _ in range(25):
        names = rng.sample([f"d{i}" for i in range(30)], rng.randint(0, 8))
        if rng.random() < 0.3:
            assert index.delete(names) == sum(name in mirror for name in names)
            mirror = {name: document for name, document in mirror.items() if name not in names}
        else:
            batch = [Document(name, f"text {rng.randint(0, 2)}", metadata={"n": rng.randint(0, 2)}) for name in names]
            known = [document for document in batch if document.id in mirror]
            same = sum(mirror[document.id] == document for document in known)
            counts = index.add(batch, batch_size=rng.randint(1, 8))
            assert counts == Counts(len(batch) - len(known), len(known) - same, same)
            mirror |= {document.id: document for document in batch}
        documents = list(mirror.values())
        assert len(index) == len(mirror)
        assert [hit.id for hit in index.search("q", k=6)] == brute_force(index, student, documents, "q", 6)
    assert {name: index.get(name) for name in mirror} == mirror


def test_the_model_is_found_where_it_was_or_beside_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "a" / "model"
    model.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    index = Index.create("a/skills.index", HashingStudent(path="a/model"))
    folder = tmp_path / "a" / "skills.index"
    assert index.description.model_folder(folder) == "a/model"
    monkeypatch.chdir("/")
    assert Path(Index.open(folder).description.model_folder(folder)).resolve() == model
    (tmp_path / "a").rename(tmp_path / "b")
    moved = tmp_path / "b" / "skills.index"
    assert Path(Index.open(moved).description.model_folder(moved)).resolve() == tmp_path / "b" / "model"
    model = tmp_path / "b" / "model"
    model.rmdir()
    with pytest.raises(InputError, match="is not to be found: it was a/model"):
        _ = Index.open(moved).student
    assert len(Index.open(moved)) == 0  # what needs no model works without


def test_the_recorded_model_is_loaded_when_first_needed_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    made_with = HashingStudent(path=str(model))
    Index.create(tmp_path / "index", made_with).add(numbered(0, 20))
    loaded: list[tuple[str, str]] = []

    class Retriever:
        fingerprint = "student-1"

        @classmethod
        def from_pretrained(cls, path: str, *, dtype: str, device: str) -> HashingStudent:
            loaded.append((path, dtype))
            return HashingStudent(path=path, fingerprint=cls.fingerprint)

    monkeypatch.setitem(sys.modules, "rabtriever.retriever", SimpleNamespace(Retriever=Retriever))
    index = Index.open(tmp_path / "index", dtype="float32")
    assert (len(index), index.get("d3").id, index.delete("d3")) == (20, "d3", 1)
    assert index.add(numbered(4, 9)) == Counts(unchanged=5)
    assert loaded == []
    assert index.search("q") == Index.open(index.path, made_with).search("q")
    index.search("r", rerank=2)
    assert loaded == [(str(model), "float32")]
    Retriever.fingerprint = "trained-anew"
    with pytest.raises(MismatchError, match="trained-anew"):
        Index.open(index.path).search("q")
