"""One student on a tiny random model, and an index of it, for all frameworks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rabtriever import Document, Index, Reranker, Retriever
from rabtriever.predictor import Predictor, PredictorConfig
from toy_data import NEEDS, SHORT, TOOLS

DOCUMENTS = [
    Document(tool, f"take the {tool}", "" if place % 2 else f"the {tool}", {"place": place})
    for place, tool in enumerate(TOOLS)
]


@pytest.fixture(scope="session")
def student_folder(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    torch.manual_seed(0)
    predictor = Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False))
    predictor.fit_standardization(teacher.query_states(NEEDS), teacher.document_states(TOOLS))
    folder = tmp_path_factory.mktemp("student") / "model"
    Retriever(teacher, predictor).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def student(student_folder: Path) -> Retriever:
    return Retriever.from_pretrained(student_folder, dtype="float32")


@pytest.fixture
def index(student: Retriever, tmp_path: Path) -> Index:
    index = Index.create(tmp_path / "index", student)
    index.add(DOCUMENTS)
    return index
