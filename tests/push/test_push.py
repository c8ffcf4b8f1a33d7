"""An index in other engines: the same hits with the same scores, however often and however brokenly it was pushed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from index.doubles import HashingStudent, numbered
from push.conftest import Place
from rabtriever.data import Document
from rabtriever.errors import InputError, MismatchError
from rabtriever.index import Index, Passages
from rabtriever.push import Pushed, PushedIndex, push
from rabtriever.push.engine import connect
from rabtriever.push.points import key

QUERIES = [f"query {i}" for i in range(6)]
ODD = Document(
    'שלום 🤖 it\'s "%s"', "\u202e text\n", "títle", {"a": ["é", None, 1.5, {"b": True}], "": "x", "big": 2**62}
)


def _push(index: Index, place: Place) -> Pushed:
    return push(index.path, place.kind, place.url, name=place.name)


def _opened(place: Place, student: HashingStudent | None = None) -> PushedIndex:
    return PushedIndex(place.kind, place.url, student or HashingStudent(), name=place.name)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add([*numbered(0, 160), ODD])
    return index


def test_hits_are_those_of_the_index_through_every_change(index: Index, place: Place) -> None:
    assert _push(index, place) == Pushed(written=161, unchanged=0, deleted=0, cut=0)
    assert _push(index, place) == Pushed(written=0, unchanged=161, deleted=0, cut=0)
    with _opened(place) as pushed:
        for query in QUERIES:
            assert pushed.search(query) == index.search(query)
        assert pushed.search("q", k=200) == index.search("q", k=200)
        assert ODD.id in [hit.id for hit in pushed.search("q", k=200)]
    index.upsert([Document("d3", "changed"), Document("d4", "text number 4", metadata={"new": "metadata"})])
    index.add([Document("new", "new")])
    index.delete(["d5", "d6", "d7"])
    index.compact()
    assert _push(index, place) == Pushed(written=3, unchanged=156, deleted=3, cut=0)
    with _opened(place) as pushed:
        assert pushed.search("q", k=200) == index.search("q", k=200)
    index.delete([hit.id for hit in index.search("q", k=200)])
    assert _push(index, place).deleted == 159
    with _opened(place) as pushed:
        assert pushed.search("q") == []


def test_a_document_is_found_by_its_best_passage(tmp_path: Path, place: Place) -> None:
    index = Index.create(tmp_path / "index", HashingStudent(), passages=Passages(characters=30, overlap=5))
    documents = [Document(f"d{i}", f"text {i} says a few things. " * (i % 9 + 1), "Title") for i in range(27)]
    index.add(documents)
    written = _push(index, place).written
    assert written > 80
    with _opened(place) as pushed:
        for query in QUERIES:
            for there, here in zip(pushed.search(query, k=12), index.search(query, k=12), strict=True):
                document = documents[int(here.id[1:])]
                expected = here.text if here.span is None else document.content[slice(*here.span)]
                assert there == replace(here, text=expected)
    index.upsert([Document("d8", "short now")])
    assert _push(index, place).deleted > 5  # its further passages
    with _opened(place) as pushed:
        found, expected = pushed.search("q", k=27), index.search("q", k=27)
        assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in expected]


def test_equal_scores_are_ordered_by_id(tmp_path: Path, place: Place) -> None:
    class Flat(HashingStudent):
        def encode_document(self, texts: list[str]) -> object:  # type: ignore[override]
            return super().encode_document(["the same"] * len(texts))

    index = Index.create(tmp_path / "index", Flat())
    index.add([(f"d{i:03}", f"text {i}") for i in range(60)])
    _push(index, place)
    with _opened(place) as pushed:
        assert [hit.id for hit in pushed.search("q", k=3)] == ["d000", "d001", "d002"]


def test_a_push_that_was_interrupted_goes_on(index: Index, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = connect(place.kind, place.url, place.name)
    engine.close()
    write, calls = type(engine).write, []

    def failing(self: object, points: list[object]) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(len(points))
        write(self, points)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(type(engine), "write", failing)
        with pytest.raises(KeyboardInterrupt):
            _push(index, place)
    assert _push(index, place) == Pushed(161 - sum(calls), sum(calls), 0, 0)
    with _opened(place) as pushed:
        assert pushed.search("q", k=20) == index.search("q", k=20)


def test_two_models_are_never_mixed(index: Index, place: Place, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such collection"):
        _opened(place)
    _push(index, place)
    for width in (16, 8):
        student = HashingStudent(dimension=width, fingerprint="another")
        other = Index.create(tmp_path / f"other {width}", student)
        other.add(numbered(0, 3))
        with pytest.raises(InputError, match="another model|vectors of 16 numbers, not 8"):
            _push(other, place)
        with pytest.raises(MismatchError, match="another model"):
            _opened(place, student)
    alike = HashingStudent(fingerprint="another", documents_by=HashingStudent().fingerprint)
    for student in (HashingStudent(), alike):
        with _opened(place, student) as pushed:
            assert pushed.search("q") == index.search("q")
    with _opened(place) as pushed:
        for query in ("", " "):
            with pytest.raises(InputError, match="a query must be"):
                pushed.search(query)
        with pytest.raises(InputError, match="k must be"):
            pushed.search("q", k=0)


def test_what_engines_cannot_hold_is_replaced_or_cut(tmp_path: Path, place: Place) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add([Document("nul", "a\0b", "\0", {"\0": ["\0", "\ud800", -(2**70)]}), Document("long", "é" * 40_000)])
    report = _push(index, place)
    assert report.cut == (1 if place.kind == "milvus" else 0)
    with _opened(place) as pushed:
        hits = {hit.id: hit for hit in pushed.search("q")}
    assert (hits["nul"].text, hits["nul"].title) == ("a\ufffdb", "\ufffd")
    assert hits["nul"].metadata == {"\ufffd": ["\ufffd", "?", str(-(2**70))]}
    assert hits["long"].text == "é" * (32_767 if report.cut else 40_000)
    assert [hit.id for hit in index.search("q")] == list(hits)


def test_points_have_their_names_for_good() -> None:
    """Another key would be another point, beside the one that users have in their engines."""
    assert key("d1", 0) == "fe673350-2913-53c3-a326-bb1a37f9a6fb"
    assert len({key("d1", 0), key("d1", 1), key("1 d1", 0), key("0 d1", 1)}) == 4
