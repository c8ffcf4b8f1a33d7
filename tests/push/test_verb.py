"""``rabtriever push``."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import cli  # noqa: F401
from cli.runner import Cli
from index.doubles import HashingStudent, numbered
from rabtriever.index import Index
from rabtriever.push import PushedIndex


def test_an_index_is_pushed_brought_up_to_date_and_found(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("milvus_lite")
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add([*numbered(0, 20), ("long", "x" * 70_000)])
    url = str(tmp_path / "milvus.db")
    ran = cli("push", tmp_path / "index", "--to", "milvus", url, "--json")
    assert (ran.code, ran.json) == (
        0,
        {
            "index": str(tmp_path / "index"),
            "engine": "milvus",
            "name": "rabtriever",
            "written": 21,
            "unchanged": 0,
            "deleted": 0,
            "cut": 1,
        },
    )
    index.delete(["d3"])
    ran = cli("push", tmp_path / "index", "--to", "milvus", url)
    assert "0 vectors written, 20 unchanged, 1 deleted\n1 texts are longer" in ran.out
    with PushedIndex("milvus", url, HashingStudent()) as pushed:
        assert [hit.id for hit in pushed.search("q")] == [hit.id for hit in index.search("q")]


def test_what_is_wrong_is_one_sentence(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("psycopg")
    Index.create(tmp_path / "index", HashingStudent())
    ran = cli("push", tmp_path / "index", "--to", "pgvector", "postgresql://me:secret@127.0.0.1:1/x", "--json")
    assert (ran.code, ran.error["code"]) == (2, "engine")
    assert "secret" not in ran.out + ran.err
    assert cli("push", tmp_path / "none", "--to", "qdrant", tmp_path / "q", "--json").error["code"] == "no_index"
    assert cli("push", tmp_path / "index", "--to", "elsewhere", "x", "--json").error["code"] == "usage"
