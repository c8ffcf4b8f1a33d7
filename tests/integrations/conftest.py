"""One student on a tiny random model, and an index of it, for all frameworks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever import Document, Index, Retriever
from tiny_student import save_tiny_student
from toy_data import TOOLS

DOCUMENTS = [
    Document(tool, f"take the {tool}", "" if place % 2 else f"the {tool}", {"place": place})
    for place, tool in enumerate(TOOLS)
]


@pytest.fixture(scope="session")
def student_folder(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_student(tiny_folder("llama"), tmp_path_factory.mktemp("student") / "model")


@pytest.fixture(scope="session")
def student(student_folder: Path) -> Retriever:
    return Retriever.from_pretrained(student_folder, dtype="float32")


@pytest.fixture
def index(student: Retriever, tmp_path: Path) -> Index:
    index = Index.create(tmp_path / "index", student)
    index.add(DOCUMENTS)
    return index
