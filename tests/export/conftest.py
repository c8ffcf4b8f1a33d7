"""Students to export: random language models, and predictors as after training for what matters here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from query_sides import random_adapter
from rabtriever import Reranker, Retriever
from rabtriever.export import export_sentence_transformers
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.prompt import PromptConfig
from rabtriever.query_side import QuerySide
from toy_data import NEEDS, TOOLS

PROMPT = PromptConfig(
    document="Document: {text}\n", query="Query: {text}\n<T>?", max_document_tokens=48, max_query_tokens=40
)


@pytest.fixture(scope="session")
def student_folder(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a student on a random model of a family, once a session."""

    @cache
    def folder(
        family: str = "llama",
        config: PredictorConfig | None = None,
        prompt: PromptConfig = PROMPT,
        query_side: bool = False,
        **options: Any,
    ) -> Path:
        teacher = Reranker.from_pretrained(tiny_folder(family, **options), prompt=prompt, dtype="float32")
        torch.manual_seed(0)
        predictor = Predictor(teacher.backbone.hidden_size, config or PredictorConfig(zero_init=False))
        texts = [f"{need}, {tool}" for need in NEEDS for tool in TOOLS]
        predictor.fit_standardization(teacher.query_states(texts), teacher.document_states(texts))
        path = tmp_path_factory.mktemp("student") / family
        side = QuerySide(teacher.backbone, *random_adapter(teacher.backbone)) if query_side else None
        Retriever(teacher, predictor, side).save_pretrained(path)
        return path

    return folder


@pytest.fixture(scope="session")
def exported(student_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exports such a student, once a session, to be used and not to be changed."""

    @cache
    def export(family: str = "llama", **options: Any) -> Path:
        path = tmp_path_factory.mktemp("exported") / "out"
        export_sentence_transformers(student_folder(family, **options), path)
        return path

    return export
