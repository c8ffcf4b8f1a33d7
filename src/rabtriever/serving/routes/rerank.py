"""``POST /v1/rerank`` in the shape of Cohere and Jina, ``POST /rerank`` in that of text-embeddings-inference."""

from __future__ import annotations

from uuid import uuid4

from fastapi import APIRouter, Request, Response

from rabtriever.serving.compatible import (
    RerankAnswer,
    RerankRequest,
    RerankResult,
    TextsRerankRequest,
    TextsRerankResult,
)
from rabtriever.serving.serving import Json, Serving

__all__ = ["rerank_routes"]


def rerank_routes(serving: Serving) -> APIRouter:
    """Ordering documents that come with the request: the teacher reads each together with the query."""
    router, service = APIRouter(tags=["rerank"]), serving.service

    def check(query: str, texts: list[str]) -> None:
        serving.check_count("documents", len(texts))
        serving.check_texts([query, *texts])

    @router.post("/v2/rerank", response_model=RerankAnswer, response_model_exclude_unset=True)
    @router.post("/v1/rerank", response_model=RerankAnswer, response_model_exclude_unset=True)
    async def rerank(body: RerankRequest, request: Request) -> Response:
        """Order documents by the probability that they answer the query."""
        serving.check_model(body.model, service.teacher_name)
        texts = [one if isinstance(one, str) else one.text for one in body.documents]
        check(body.query, texts)
        ranked = await serving.read(request, lambda: service.rank(body.query, texts))
        results: list[RerankResult] = []
        for position, _, probability in ranked[: body.top_n]:
            results.append({"index": position, "relevance_score": probability})
            if body.return_documents:
                results[-1]["document"] = {"text": texts[position]}
        answer: RerankAnswer = {
            "id": str(uuid4()),
            "model": service.teacher_name,
            "results": results,
            "meta": {"api_version": {"version": request.url.path.split("/")[1].removeprefix("v")}},
        }
        return Json(answer)

    @router.post("/rerank", response_model=list[TextsRerankResult])
    async def rerank_texts(body: TextsRerankRequest, request: Request) -> Response:
        """Order texts as text-embeddings-inference does."""
        check(body.query, body.texts)
        ranked = await serving.read(request, lambda: service.rank(body.query, body.texts))
        results: list[TextsRerankResult] = []
        for position, log_odds, probability in ranked:
            results.append({"index": position, "score": log_odds if body.raw_scores else probability})
            if body.return_text:
                results[-1]["text"] = body.texts[position]
        return Json(results)

    return router
