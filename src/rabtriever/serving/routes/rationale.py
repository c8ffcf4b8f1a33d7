"""``POST /v1/rationale``: one document's verdict, in words."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rabtriever.serving.schemas import RationaleAnswer, RationaleRequest
from rabtriever.serving.serving import Json, Serving

__all__ = ["rationale_routes"]


def rationale_routes(serving: Serving) -> APIRouter:
    """Saying why."""
    router = APIRouter(tags=["search"])

    @router.post("/v1/rationale", response_model=RationaleAnswer)
    async def rationale(body: RationaleRequest, request: Request) -> Response:
        """Say in words why the teacher takes a document for right or wrong. Generated text: it may be mistaken."""
        serving.check_texts([body.query])
        written = await serving.read(request, lambda: serving.service.rationale(body.query, body.id))
        answer: RationaleAnswer = {
            "id": body.id,
            "probability": written.probability,
            "rationale": written.text,
            "generated_by": written.by,
        }
        return Json(answer)

    return router
