"""``rabtriever export``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.cli import main
from rabtriever.index import Index


def test_json_and_text(student_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(student_folder("llama"))
    assert main(["export", folder, str(tmp_path / "st"), "--to", "sentence-transformers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"path", "to", "differences", "bytes", "notes"}
    assert found["to"] == "sentence-transformers"
    assert set(found["differences"]) == {"queries", "documents", "similarities"}
    Index.create(tmp_path / "index", HashingStudent()).add(numbered(0, 3))
    assert main(["export", str(tmp_path / "index"), str(tmp_path / "out.parquet"), "--to", "parquet"]) == 0
    assert "out.parquet: parquet" in capsys.readouterr().out


def test_mistakes_are_one_sentence(
    student_folder: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "out"), "--to", "sentence-transformers"]) == 2
    assert main(["export", str(student_folder("llama")), str(tmp_path), "--to", "pickle"]) == 2
    assert "Traceback" not in capsys.readouterr().err
