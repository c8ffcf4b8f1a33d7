"""What is told of engines that are not there, and of names and packages that are wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from index.doubles import HashingStudent
from rabtriever.errors import InputError
from rabtriever.index import Index
from rabtriever.push import Kind, push
from rabtriever.push.engine import connect, shown

PACKAGES = {"qdrant": "qdrant_client", "milvus": "pymilvus", "pgvector": "psycopg"}


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("qdrant", "http://127.0.0.1:1"),
        ("milvus", "http://127.0.0.1:1"),
        ("pgvector", "postgresql://someone:secret@127.0.0.1:1/nothing"),
    ],
)
def test_an_engine_that_does_not_answer_is_one_sentence(kind: Kind, url: str, tmp_path: Path) -> None:
    pytest.importorskip(PACKAGES[kind])
    Index.create(tmp_path / "index", HashingStudent())
    with pytest.raises(InputError) as caught:
        push(tmp_path / "index", kind, url)
    assert "127.0.0.1:1" in caught.value.message
    assert "secret" not in str(caught.value)
    assert "\n" not in caught.value.message
    assert "see that it runs" in caught.value.hint


@pytest.mark.parametrize("kind", list(PACKAGES))
def test_a_missing_package_names_its_extra(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[kind], None)
    monkeypatch.delitem(sys.modules, f"rabtriever.push.{kind}", raising=False)
    with pytest.raises(InputError, match=f"{kind} needs the package {PACKAGES[kind]}") as caught:
        connect(kind, "x")
    assert caught.value.hint == f"pip install 'rabtriever[{kind}]'"


def test_places_and_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown engine 'faiss'"):
        connect("faiss", "x")  # type: ignore[arg-type]
    for name in ("", "a b", "1a", "a" * 64, 'a";drop'):
        with pytest.raises(InputError, match="cannot name a collection"):
            connect("qdrant", str(tmp_path), name)
    pytest.importorskip("pymilvus")
    with pytest.raises(InputError, match="ends in .db"):
        connect("milvus", str(tmp_path / "file"))
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match="postgresql://"):
        connect("pgvector", "mysql://me:secret@host/db")
    assert "secret" not in shown("postgresql://me:secret@[host/db")
