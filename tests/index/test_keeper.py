"""The cache is built anew beside the index's use."""

from __future__ import annotations

import threading

import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.index import CacheKeeper, Index, cache


def test_a_cache_is_built_when_it_is_absent_or_too_far_behind(index: Index) -> None:
    expected = index.search("q", k=20)
    with CacheKeeper(index, least=1000) as keeper:
        keeper.look()
    assert (keeper.error, index.uncached, index.search("q", k=20)) == (None, 0, expected)
    built = cache.segments(index.path, index.description)[0]
    with CacheKeeper(index, least=1000) as keeper:
        index.add(numbered(1500, 1600))  # fewer than a tenth: searched beside the cache
        keeper.look()
    assert (index.uncached, len(cache.segments(index.path, index.description)[0])) == (100, len(built))
    with CacheKeeper(index, least=1000) as keeper:
        index.add(numbered(1600, 1800))
        keeper.look()
    assert (index.uncached, len(cache.segments(index.path, index.description)[0])) == (0, 1800)
    assert index.search("q", k=1800) == Index.open(index.path, HashingStudent()).search("q", k=1800)


def test_a_small_index_needs_none(index: Index) -> None:
    with CacheKeeper(index) as keeper:
        keeper.look()
    assert not (index.path / "cache").exists()


def test_a_damaged_cache_is_built_anew(index: Index) -> None:
    index.accelerate()
    (vectors,) = index.path.glob("cache/*/vectors.f32")
    content = bytearray(vectors.read_bytes())
    content[100] ^= 1
    vectors.unlink()
    vectors.write_bytes(content)
    with Index.open(index.path, HashingStudent()) as opened, CacheKeeper(opened, least=1000) as keeper:
        assert opened.check().cache == "damaged"
        keeper.look()
        assert keeper.wait()
        assert (opened.uncached, opened.check().cache) == (0, index.check().cache)


def test_searches_and_writes_go_on_meanwhile(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()
    build = cache.build

    def slow(*arguments: object, **options: object) -> cache.Header:
        began.set()
        assert go_on.wait(30)
        return build(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "build", slow)
    with CacheKeeper(index, least=1000) as keeper:
        keeper.look()
        assert began.wait(30)
        keeper.look()  # one at a time
        index.upsert([("new", "text")])
        index.delete(["d3"])
        found = {hit.id for hit in index.search("q", k=2000)}
        assert "new" in found
        assert "d3" not in found
        go_on.set()
    assert {hit.id for hit in index.search("q", k=2000)} == found  # not the version that the cache is of
    assert index.version == Index.open(index.path, HashingStudent()).version


def test_what_it_fails_with_is_kept_and_harms_nobody(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> cache.Header:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "build", full)
    with CacheKeeper(index, least=1000) as keeper:
        keeper.look()
    assert "No space left" in str(keeper.error)
    assert index.search("q", k=3)
    index.close()
    with CacheKeeper(Index.open(index.path, HashingStudent()), least=1000) as keeper:
        monkeypatch.undo()
        keeper.look()
    assert keeper.error is None
