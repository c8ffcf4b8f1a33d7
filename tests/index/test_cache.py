"""The cache is quick, never wrong, and nothing is lost without it."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.data import Document
from rabtriever.index import Index, Passages, accelerator, cache


def _reopened(index: Index) -> Index:
    return Index.open(index.path, HashingStudent())


def _accelerated(index: Index) -> bool:
    index.search("q")
    return any(part.segment.accelerator is not None for part in index._snapshot.parts)


def test_hits_are_the_same_with_and_without(index: Index) -> None:
    pytest.importorskip("faiss")
    queries = [f"query {i}" for i in range(12)]
    plain = [index.search(query, k=10) for query in queries]
    header = index.accelerate()
    assert (header.codes, header.documents, header.vectors) == ("sq8", 1500, 1500)
    assert header.recall is not None
    assert header.recall >= accelerator.LEAST_RECALL
    for reader in (index, _reopened(index)):
        assert _accelerated(reader)
        found = [reader.search(query, k=10) for query in queries]
        same = sum(a == b for one, other in zip(found, plain, strict=True) for a, b in zip(one, other, strict=True))
        assert same >= 118  # of 120, scores and all
        assert reader.search("q", k=1500) == index.search("q", k=1500)
    assert index.check().cache == "ready"


@pytest.mark.parametrize("fast", [False, True])
def test_codes_in_several_files_find_the_same(index: Index, monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(accelerator, "measure", lambda *_: 1.0)
    queries = [f"question {i}" for i in range(40)]
    index.accelerate(queries, fast=fast)
    options: tuple[dict[str, str], ...] = ({}, {"filter": "number < 1200"}, {"filter": "number < 700"})
    whole = [index.search(queries, k=10, **some) for some in options]
    monkeypatch.setattr(accelerator, "_LEAST_PART", 100)
    index.accelerate(queries, fast=fast)
    assert len(list(index.path.glob("cache/*/scan-*.faiss"))) == 8
    parts = [index.search(queries, k=10, **some) for some in options]
    same = [a == b for one, other in zip(whole, parts, strict=True) for a, b in zip(one, other, strict=True)]
    assert sum(same) >= 0.95 * len(same)  # each takes as many candidates, of codes of the same training
    assert _accelerated(_reopened(index))


def test_an_index_named_by_a_relative_path(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(index.path.parent)
    expected = index.search("q", k=20)
    (index.path / "cache" / "documents-1.tmp-dead").mkdir(parents=True)
    with Index.open(index.path.name, HashingStudent()) as here:
        assert here.accelerate().documents == 1500
        assert here.check().cache == ("ready" if accelerator.version() else "exact")
        assert here.search("q", k=20) == expected
    assert not list(index.path.glob("cache/*.tmp-*"))


def test_rows_newer_than_the_cache_are_found_and_deleted_ones_are_not(index: Index) -> None:
    pytest.importorskip("faiss")
    index.accelerate()
    index.add([Document(f"d{i}", f"changed {i}", metadata={"number": i}) for i in range(40)])
    index.add([Document(f"new{i}", f"new {i}", metadata={"number": i}) for i in range(40)])
    index.delete([f"d{i}" for i in range(1000, 1300)])
    cached, exact = _reopened(index), _reopened(index)
    assert _accelerated(cached)
    exact._open = exact._store.snapshot()
    for query in ("a", "b", "c"):
        for options in ({}, {"filter": "number < 700"}, {"filter": "number < 30"}, {"filter": "number = 1100"}):
            assert cached.search(query, k=8, **options) == exact.search(query, k=8, **options)
    assert cached.search("a", k=2000) == exact.search("a", k=2000)
    newest = index.version
    index.restore(2)
    assert _reopened(index).search("a", k=2000) == _reopened(index).search("a", k=2000)
    index.restore(newest)
    index.compact()
    assert _reopened(index).search("a", k=2000) == exact.search("a", k=2000)


@pytest.mark.parametrize(
    "name", ["vectors.f32", "stamps.u64", "records.arrow", "texts.jsonl", "texts.i64", "scan-00.faiss", "header.json"]
)
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_cache_is_named_and_not_used(tmp_path: Path, name: str, how: str) -> None:
    pytest.importorskip("faiss")
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 60))
    hits = index.search("q", k=60)
    index.accelerate()
    (place,) = (index.path / "cache").iterdir()
    file = place / name
    data = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    else:
        data[len(data) // 2] ^= 0x04
        file.write_bytes(data if how == "flip" else data[: len(data) // 2])
    reader = _reopened(index)
    report = reader.check()
    assert reader.search("q", k=60) == hits
    if (name, how) != ("header.json", "flip") or report.cache == "damaged":  # a flip may make another valid header
        assert report.cache == "damaged"
        assert [problem.kind for problem in report.problems] == ["cache"]
    Index.repair(index.path, HashingStudent())
    assert _reopened(index).check().clean
    index.accelerate()
    assert (index.check().cache, index.search("q", k=60)) == ("ready", hits)


def test_a_scan_that_misses_too_much_is_not_used(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(accelerator, "measure", lambda *_: 0.98)
    header = index.accelerate(["one question", "another"])
    assert (header.codes, header.recall) == (None, 0.98)
    hits = index.search("q", k=20)
    assert not _accelerated(_reopened(index))
    assert _reopened(index).search("q", k=20) == hits
    assert index.check().cache == "exact"


def test_codes_take_the_bytes_that_they_are_said_to(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    recalls = iter((0.5, 0.5, 1.0))  # each way is tried in turn
    monkeypatch.setattr(accelerator, "measure", lambda *_: next(recalls))
    built: dict[str, int] = {}
    build = accelerator.build

    def sized(vectors: np.ndarray, codes: accelerator.Codes, folder: Path, queries: np.ndarray) -> None:
        build(vectors, codes, folder, queries)
        built[codes] = sum(path.stat().st_size for path in folder.glob("scan-*"))

    monkeypatch.setattr(accelerator, "build", sized)
    assert index.accelerate([f"question {i}" for i in range(40)], fast=True).codes == "fp16"
    assert list(built) == ["rabitq", "sq8", "fp16"]
    for codes, stored in built.items():
        said = accelerator.size(codes, 1500, 16)  # type: ignore[arg-type]
        assert said <= stored < said + 4096, codes
    monkeypatch.setattr(accelerator, "measure", lambda *_: 1.0)
    assert index.accelerate(memory=1500 * 16).codes == "sq8"
    assert index.accelerate(memory=1500 * 16 - 1).codes is None


def test_without_faiss_vectors_are_mapped_and_searched_exactly(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    hits = index.search("q", k=20)
    monkeypatch.setattr(accelerator, "version", lambda: None)
    assert index.accelerate().codes is None
    reader = _reopened(index)
    assert reader.search("q", k=20) == hits
    array = reader._snapshot.parts[0].segment.vectors
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert isinstance(array.base, mmap.mmap)
    assert not _accelerated(reader)


def test_a_cache_of_another_model_or_library_is_stale(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.accelerate()
    assert len(cache.segments(index.path, index.description)) == 1
    other = index.description.model.model_copy(update={"fingerprint": "other"})
    assert cache.segments(index.path, index.description.model_copy(update={"model": other})) == []
    monkeypatch.setattr("rabtriever.__version__", "99")
    assert cache.segments(index.path, index.description) == []
    report = index.check()
    assert (report.clean, report.cache) == (True, "none")


def test_only_the_newest_cache_is_kept_and_leftovers_go(index: Index) -> None:
    index.accelerate()
    (index.path / "cache" / "documents-9.tmp-abcd").mkdir()
    index.add([("x", "y")])
    index.accelerate()
    assert [path.name for path in (index.path / "cache").iterdir()] == [f"documents-{index.version}"]


def test_a_cache_that_is_half_deleted_looks_like_none(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the process is killed while it deletes."""
    index.accelerate()
    index.add([("x", "y")])
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda path, **_: (Path(path) / "header.json").unlink(missing_ok=True))
        index.accelerate()
    assert len(list((index.path / "cache").iterdir())) == 2
    report = _reopened(index).check()
    assert (report.clean, report.cache) == (True, "ready")
    index.accelerate()
    assert [path.name for path in (index.path / "cache").iterdir()] == [f"documents-{index.version}"]


def test_long_documents_and_an_empty_index(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    index = Index.create(tmp_path / "index", HashingStudent(), passages=Passages(characters=30, overlap=5))
    assert index.accelerate().documents == 0
    assert index.search("q") == []
    index.add([Document(f"d{i}", f"a text of some length, with the number {i}, " * (i % 7)) for i in range(400)])
    hits = [index.search(query, k=5) for query in "abcd"]
    header = index.accelerate()
    assert header.vectors > header.documents == 400
    reader = _reopened(index)
    assert _accelerated(reader) == (header.codes is not None)
    assert [reader.search(query, k=5) for query in "abcd"] == hits
