"""``POST /v1/embeddings`` and ``GET /v1/models`` in the shape of OpenAI."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from rabtriever.serving.compatible import EmbeddingOut, EmbeddingsAnswer, EmbeddingsRequest, ModelsAnswer
from rabtriever.serving.failures import ServingError
from rabtriever.serving.serving import Json, Serving

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["embedding_routes"]


def embedding_routes(serving: Serving) -> APIRouter:
    """The student's vectors."""
    router, service = APIRouter(tags=["embeddings"]), serving.service

    @router.post("/v1/embeddings", response_model=EmbeddingsAnswer)
    async def embed(body: EmbeddingsRequest, request: Request) -> Response:
        """Encode texts as queries or as documents; the inner product of the two is the log-odds."""
        serving.check_model(body.model, service.name)
        dimension = service.model.dimension
        if body.dimensions not in (None, dimension):
            raise ServingError(
                400, "wrong_dimensions", f"the model's vectors have {dimension} dimensions", "leave it out"
            )
        texts = [body.input] if isinstance(body.input, str) else body.input
        serving.check_count("input", len(texts))
        serving.check_texts(texts)
        if body.input_type == "query" and not all(text.strip() for text in texts):
            raise ServingError(400, "bad_input", "a query is empty", "write what is to be answered")
        vectors, tokens = await serving.read(request, lambda: service.embed(body.input_type, texts))
        answer: EmbeddingsAnswer = {
            "object": "list",
            "data": [_embedding(place, vector, body.encoding_format) for place, vector in enumerate(vectors)],
            "model": service.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return Json(answer)

    @router.get("/v1/models", response_model=ModelsAnswer)
    async def models() -> Response:
        """The student, and the teacher where it is another model."""
        names = dict.fromkeys([service.name, service.teacher_name])
        answer: ModelsAnswer = {
            "object": "list",
            "data": [{"id": name, "object": "model", "created": 0, "owned_by": "rabtriever"} for name in names],
        }
        return Json(answer)

    return router


def _embedding(place: int, vector: NDArray[np.float32], encoding: str) -> EmbeddingOut:
    numbers = vector.astype("<f4")
    return {
        "object": "embedding",
        "index": place,
        "embedding": base64.b64encode(numbers.tobytes()).decode() if encoding == "base64" else numbers.tolist(),
    }
