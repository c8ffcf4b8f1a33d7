"""An exported teacher gives the same log-odds through sentence-transformers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from closeness import assert_same
from rabtriever import Reranker
from rabtriever.errors import InputError
from rabtriever.export import export_cross_encoder
from rabtriever.prompt import PromptConfig
from toy_data import NEEDS, SHORT, TOOLS, toy_dataset

PROMPT = PromptConfig(max_document_tokens=48, max_query_tokens=40)
TEXTS = ["", "a", " x", "<|im_end|> \u05e9\u05dc\u05d5\u05dd \U0001f680", *NEEDS[:2]]
PAIRS = [(query, document) for query in TEXTS for document in ("", *TOOLS[:2], TEXTS[3])]


@pytest.fixture(scope="module")
def teacher_folder(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def folder(family: str = "llama") -> Path:
        teacher = Reranker.from_pretrained(tiny_folder(family), prompt=PROMPT, dtype="float32")
        path = tmp_path_factory.mktemp("teacher") / family
        teacher.save_pretrained(path)
        return path

    return folder


def assert_equal(folder: Path, teacher: Reranker) -> None:
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    expected = teacher.score_pairs(PAIRS)
    assert_same(model.predict(PAIRS, batch_size=7), expected)
    assert_same(np.array([model.predict(pair) for pair in PAIRS[:3]]), expected[:3])
    ranked = model.rank(NEEDS[0], list(TOOLS))
    assert [hit["corpus_id"] for hit in ranked] == [place for place, _ in teacher.rank(NEEDS[0], list(TOOLS))]


@pytest.mark.parametrize("family", ["gemma2", "phi"])
def test_every_family_gives_the_same_log_odds(family: str, teacher_folder: Callable, tmp_path: Path) -> None:
    folder = teacher_folder(family)
    found = export_cross_encoder(folder, tmp_path / "out")
    assert found.differences["log-odds"] < 1e-5
    assert_equal(tmp_path / "out", Reranker.from_pretrained(folder, dtype="float32"))


def test_an_adapter_is_merged(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    from rabtriever.training.config import LoraConfig, TeacherConfig

    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    lora = LoraConfig(rank=4, alpha=64)
    config = TeacherConfig(lora=lora, freeze_layers=0, epochs=0.5, evaluations=1, learning_rate=0.05)
    teacher.fit(toy_dataset(), config)
    teacher.save_pretrained(tmp_path / "teacher")
    assert (tmp_path / "teacher" / "backbone" / "adapter_model.safetensors").is_file()
    untrained = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    pairs = [(need, tool) for need in NEEDS for tool in TOOLS[:2]]
    assert not np.allclose(teacher.score_pairs(pairs), untrained.score_pairs(pairs), atol=0.01)
    found = export_cross_encoder(tmp_path / "teacher", tmp_path / "out")
    assert found.differences["log-odds"] < 1e-5
    model = CrossEncoder(str(tmp_path / "out"), device="cpu", local_files_only=True)
    loaded = Reranker.from_pretrained(tmp_path / "teacher", dtype="float32")
    assert_same(model.predict(pairs), loaded.score_pairs(pairs))


def test_a_students_teacher_can_be_exported(student_folder: Callable[..., Path], tmp_path: Path) -> None:
    export_cross_encoder(student_folder("llama"), tmp_path / "out")
    assert_equal(tmp_path / "out", Reranker.from_pretrained(student_folder("llama"), dtype="float32"))


def test_a_folder_of_something_else_is_not_replaced(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds other files"):
        export_cross_encoder(tiny_folder("llama"), tiny_folder("gpt2"))
