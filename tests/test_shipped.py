"""Models that come with the package: found by name wherever they are asked for, and a folder of that name wins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rabtriever import Index, Reranker, Retriever, shipped
from rabtriever.cli import main
from rabtriever.errors import InputError
from rabtriever.predictor import Predictor, PredictorConfig
from toy_data import NEEDS, SHORT, TOOLS


@pytest.fixture
def package(tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder of models, with one in it; the working folder is empty."""
    root = tmp_path / "package" / "models"
    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    torch.manual_seed(0)
    predictor = Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False))
    Retriever(teacher, predictor).save_pretrained(root / "tiny-skills")
    (root / "not-a-model").mkdir()
    monkeypatch.setattr(shipped, "_ROOT", root)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return root


def test_a_name_means_the_packages_model(package: Path) -> None:
    assert shipped.shipped_models() == ["tiny-skills"]
    student = Retriever.from_pretrained("tiny-skills")
    same = Retriever.from_pretrained(package / "tiny-skills")
    assert np.array_equal(student.encode_query(NEEDS), same.encode_query(NEEDS))
    assert Reranker.from_pretrained("tiny-skills").weights_hash == same.reranker.weights_hash
    with pytest.raises(InputError, match="not-a-model"):
        Retriever.from_pretrained("not-a-model")


def test_a_folder_of_that_name_wins(package: Path) -> None:
    Path("tiny-skills").mkdir()
    with pytest.raises(InputError, match="tiny-skills"):
        Retriever.from_pretrained("tiny-skills")
    assert shipped.shipped_folder("tiny-skills") is None


def test_an_index_finds_it_again_wherever_the_package_lies(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index.create("tools", Retriever.from_pretrained("tiny-skills")) as index:
        index.add(TOOLS)
        first = [hit.id for hit in index.search(NEEDS[0], k=3)]
    elsewhere = package.parent / "another" / "place"
    shutil.move(package, elsewhere)
    monkeypatch.setattr(shipped, "_ROOT", elsewhere)
    with Index.open("tools") as index:
        assert index.description.model.path == "tiny-skills"
        assert [hit.id for hit in index.search(NEEDS[0], k=3)] == first


def test_the_command_line_takes_the_name(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(*arguments: str) -> dict[str, Any]:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    Path("tools.jsonl").write_text("".join(json.dumps({"_id": tool, "text": tool}) + "\n" for tool in TOOLS))
    answer("index", "tiny-skills", "tools.jsonl", "-o", "tools")
    assert len(answer("search", "tools", NEEDS[0], "-k", "2")["hits"]) == 2
    assert len(answer("rerank", "tiny-skills", NEEDS[0], "tools.jsonl")["hits"]) == len(TOOLS)
    assert answer("info", "tiny-skills")["kind"] == "retriever"
    assert answer("info")["shipped_models"] == ["tiny-skills"]
