"""mteb: a student as one of its encoders, so that its retrieval tasks evaluate it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rabtriever.compiled import CompiledRetriever, load_student
from rabtriever.dual_encoder import DualEncoder
from rabtriever.errors import InputError
from rabtriever.integrations import missing_package

try:
    from mteb.models.model_meta import ModelMeta, ScoringFunction
    from mteb.similarity_functions import dot_score, pairwise_dot_score
    from mteb.types import PromptType
except ModuleNotFoundError as error:
    raise missing_package("mteb", "mteb", "mteb") from error

if TYPE_CHECKING:
    import numpy as np
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.types import Array, BatchedInput
    from numpy.typing import NDArray
    from torch.utils.data import DataLoader

    from rabtriever.retriever import Retriever

__all__ = ["RabtrieverEncoder"]


class RabtrieverEncoder:
    """A student with the interface of an mteb encoder; give it to ``mteb.evaluate``.

    Args:
        model_name: A trained model or its export, by folder, name or hub id, or loaded.
        device: A torch device, for a trained model.
        revision: Recorded in mteb's results.
        name: What mteb calls the model, as ``organisation/model``.

    Raises:
        InputError: If nothing loadable is there.

    Example:
        >>> import mteb                                                                          # doctest: +SKIP
        >>> tasks = mteb.get_tasks(["SciFact"])                                                  # doctest: +SKIP
        >>> mteb.evaluate(RabtrieverEncoder("my-model"), tasks)                                  # doctest: +SKIP
    """

    def __init__(
        self,
        model_name: str | Retriever | CompiledRetriever,
        revision: str | None = None,
        *,
        name: str = "rabtriever/student",
        device: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.student = (
            model_name if isinstance(model_name, DualEncoder) else load_student(model_name, device=device or "auto")
        )
        known: dict[str, Any] = {
            "name": name,
            "revision": revision or self.student.fingerprint[:12],
            "embed_dim": self.student.dimension,
            "max_tokens": self.student.reranker.prompt.parts.max_document_tokens,
            "similarity_fn_name": ScoringFunction.DOT_PRODUCT,
            "framework": ["PyTorch"],
            "use_instructions": True,
        }
        self.mteb_model_meta = ModelMeta.create_empty(known)

    def encode(
        self,
        inputs: DataLoader[BatchedInput],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """Vectors of queries or documents, ``(n, k)`` float32.

        Raises:
            InputError: If the task says of its texts neither that they are queries nor that they are documents.
        """
        if prompt_type is None:
            raise InputError(
                f"the task {task_metadata.name} compares texts of one kind, and a student reads queries and documents",
                hint="choose retrieval or reranking tasks",
            )
        texts = [text for batch in inputs for text in batch["text"]]
        encode = self.student.encode_query if prompt_type is PromptType.query else self.student.encode_document
        return encode(texts)

    def similarity(self, embeddings1: Array, embeddings2: Array) -> torch.Tensor:
        """Inner products, ``(m, n)``."""
        return torch.as_tensor(dot_score(embeddings1, embeddings2))

    def similarity_pairwise(self, embeddings1: Array, embeddings2: Array) -> torch.Tensor:
        """Inner products of the vectors in the same place, ``(n,)``."""
        return torch.as_tensor(pairwise_dot_score(embeddings1, embeddings2))
