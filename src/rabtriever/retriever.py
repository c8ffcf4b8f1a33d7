"""The student: documents and queries encoded apart, scored by one inner product (Eq. 10 and 12, folded)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rabtriever.base_models import at_revision
from rabtriever.dual_encoder import DualEncoder, Route
from rabtriever.fingerprints import fingerprint_tensors
from rabtriever.hub import Pushable
from rabtriever.numerics import DType
from rabtriever.predictor import Predictor
from rabtriever.progress import Task
from rabtriever.reranker import Reranker

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from rabtriever.backbone import Backbone
    from rabtriever.query_side import QuerySide

__all__ = ["Retriever"]

_CHUNK = 256
"""Texts between two reports of progress."""


class Retriever(DualEncoder, Pushable):
    """Encodes documents once and queries alone; their inner product is the student's log-odds.

    The head is linear and the product element-wise, so ``(w_T - w_F) . (MLP(e_Q) * e_D)`` is an inner product of a
    query vector with a document vector: any index for maximum inner product search ranks exactly as the student does.

    Args:
        reranker: The teacher; student and teacher share its language model.
        predictor: What was distilled.
        query_side: The language model with an adapter that queries are read with, if they have one of their own.

    Attributes:
        reranker: The teacher on the same language model, to rerank what was found.
        path: The folder it was loaded from or saved to, or None.

    Example:
        >>> student = Retriever.from_pretrained("household")                 # doctest: +SKIP
        >>> documents = student.encode_document(["find a sponge"])           # doctest: +SKIP
        >>> queries = student.encode_query(["I spilled my coke"])            # doctest: +SKIP
        >>> student.similarity(queries, documents).shape                     # doctest: +SKIP
        (1, 1)
    """

    def __init__(self, reranker: Reranker, predictor: Predictor, query_side: QuerySide | None = None) -> None:
        self.reranker = reranker
        self.predictor = predictor.eval()
        self.query_side = query_side
        self.training: dict[str, Any] = {}
        self.path: str | None = None

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, dtype: DType = "auto", device: str = "auto", revision: str | None = None
    ) -> Retriever:
        """Load a model made by :meth:`save_pretrained` or ``rabtriever train``.

        Args:
            path: Its folder, the name of one that comes with the package (``robot-skills``), or its hub id; wherever a
                hub id is taken, ``org/name@revision`` is too.
            dtype: What to compute in; ``auto`` asks the processor.
            device: A torch device; ``auto`` takes CUDA where there is one.
            revision: The hub's branch, tag or commit.

        Raises:
            InputError: If nothing loadable is there, or its numbers are not finite.
            MismatchError: If base model, tokenizer or prompt differ from those it was trained with.
        """
        from rabtriever.model_folder import load_retriever

        return load_retriever(at_revision(path, revision), dtype=dtype, device=device)

    def save_pretrained(self, path: str | Path) -> None:
        """Write the model to a folder, atomically: config, language model or adapter, predictor and a model card."""
        from rabtriever.model_folder import save_retriever

        save_retriever(self, Path(path))
        self.path = str(path)

    @property
    def dimension(self) -> int:
        """``k``, the length of a vector."""
        return self.predictor.vector_size

    @property
    def bias(self) -> float:
        """What :meth:`similarity` adds to every inner product: the head's constant ``b_T - b_F``."""
        return self.reranker.rows.offset

    @cached_property
    def fingerprint(self) -> str:
        """Identifies all that vectors depend on: weights, prompt and predictor. An index refuses any other."""
        digest = hashlib.sha256(f"{self.reranker.fingerprint} {self.predictor.config.model_dump_json()}".encode())
        for name, tensor in sorted(self.predictor.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
        if self.query_side is not None:
            digest.update(self.query_side.hash.encode())
        return digest.hexdigest()

    @cached_property
    def document_fingerprint(self) -> str:
        """Identifies what documents' vectors depend on. Students that differ in how queries are read alone share it.

        An index of one of them holds the vectors of all of them: :meth:`~rabtriever.index.Index.reindex` moves it from
        one to another without encoding anything.
        """
        about = f"documents {self.reranker.fingerprint} {self.dimension} {self.predictor.config.multiply}"
        return fingerprint_tensors(about, self.predictor.document_state())

    @property
    def query_backbone(self) -> Backbone:
        """What queries are read by: the teacher's language model, or that with an adapter for queries."""
        return self.reranker.backbone if self.query_side is None else self.query_side.backbone

    def query_states(self, queries: Sequence[str]) -> Tensor:
        """``e_Q``, the query part read alone (Eq. 10), ``(m, d)`` float32."""
        return self.query_backbone.last_states([self.reranker.prompt.query_ids(text) for text in queries])

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str], route: Route, task: Task) -> NDArray[np.float32]:
        out = np.empty((len(texts), self.dimension), dtype=np.float32)
        states = self.query_states if route == "query" else self.reranker.document_states
        # Long texts first, over all of them: what is encoded together has nearly one length.
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        for start in range(0, len(order), _CHUNK):
            rows = order[start : start + _CHUNK]
            found = states([texts[row] for row in rows])
            if route == "query":
                vectors = self.predictor.fold(found, self.reranker.rows.direction)
            else:
                vectors = self.predictor.document(found)
            out[rows] = vectors.numpy()
            task.advance(len(rows))
        return out
