"""The model that the benchmarks measure, and the same weights in the peers' formats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from rabtriever import CompiledRetriever, Reranker, Retriever
from rabtriever.export import export_cross_encoder, export_graph, export_sentence_transformers
from rabtriever.numerics import DType
from rabtriever.predictor import Predictor, PredictorConfig


@dataclass
class Models:
    """One language model, with the paper's predictor, which nobody trained: speed does not depend on what weights say.

    Args:
        base: The language model.
        folder: Where the exports are kept for the next run.
        dtype: What all of them compute in.
    """

    base: str
    folder: Path
    dtype: DType = "auto"

    @cached_property
    def student(self) -> Retriever:
        """The student; its teacher is at ``.reranker``."""
        teacher = Reranker.from_pretrained(self.base, dtype=self.dtype)
        predictor = Predictor(teacher.backbone.hidden_size, PredictorConfig(rank=None))
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in predictor.parameters():
                parameter.normal_(std=0.05, generator=draw)  # its last layer starts at zero
        return Retriever(teacher, predictor)

    @property
    def number(self) -> str:
        """The dtype's name, as torch writes it."""
        return str(self.student.reranker.backbone.dtype).removeprefix("torch.")

    @cached_property
    def compiled(self) -> CompiledRetriever:
        """The student in OpenVINO."""
        if not (self.folder / "openvino").exists():
            export_graph(self._saved, self.folder / "openvino", "openvino")
        return CompiledRetriever(self.folder / "openvino", dtype=self.number)  # type: ignore[arg-type]

    @cached_property
    def sentence_transformer(self) -> Any:
        """The student by sentence-transformers alone."""
        from sentence_transformers import SentenceTransformer

        if not (self.folder / "sentence-transformers").exists():
            export_sentence_transformers(self._saved, self.folder / "sentence-transformers")
        model = SentenceTransformer(str(self.folder / "sentence-transformers"), device="cpu")
        return model.to(self.student.reranker.backbone.dtype)

    @cached_property
    def cross_encoder(self) -> Any:
        """The teacher by sentence-transformers alone."""
        from sentence_transformers import CrossEncoder

        if not (self.folder / "cross-encoder").exists():
            export_cross_encoder(self._saved, self.folder / "cross-encoder")
        model = CrossEncoder(str(self.folder / "cross-encoder"), device="cpu")
        return model.to(self.student.reranker.backbone.dtype)

    @cached_property
    def _saved(self) -> Path:
        path = self.folder / "student"
        if not path.exists():
            self.student.save_pretrained(path)
        return path
