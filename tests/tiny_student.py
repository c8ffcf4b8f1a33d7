"""A student on a tiny random model: what a training leaves, for what does not depend on how good it is."""

from __future__ import annotations

from pathlib import Path

import torch

from rabtriever import Reranker, Retriever
from rabtriever.predictor import Predictor, PredictorConfig
from toy_data import NEEDS, SHORT, TOOLS


def save_tiny_student(base: Path, folder: Path) -> Path:
    """Save a student, standardised but untrained, on the model in ``base``."""
    teacher = Reranker.from_pretrained(base, prompt=SHORT, dtype="float32")
    torch.manual_seed(0)
    predictor = Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False))
    predictor.fit_standardization(teacher.query_states(NEEDS), teacher.document_states(TOOLS))
    Retriever(teacher, predictor).save_pretrained(folder)
    return folder
