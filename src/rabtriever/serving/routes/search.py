"""``POST /v1/search``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from rabtriever.index.records import sigmoid
from rabtriever.serving.explain import Explanation, Share
from rabtriever.serving.schemas import ExplanationOut, HitOut, SearchAnswer, SearchRequest, ShareOut
from rabtriever.serving.service import Found
from rabtriever.serving.service import Request as Search
from rabtriever.serving.serving import Json, Serving

__all__ = ["search_routes"]


def search_routes(serving: Serving) -> APIRouter:
    """Answering queries."""
    router = APIRouter(tags=["search"])

    @router.post("/v1/search", response_model=SearchAnswer)
    async def search(body: SearchRequest, request: Request) -> Response:
        """Find the documents that answer a query best."""
        serving.check_count("k", body.k, serving.limits.hits)
        serving.check_count("rerank", body.rerank, serving.limits.hits)
        serving.check_texts([body.query])
        wanted = Search(**body.model_dump())
        result = await serving.read(request, lambda: serving.service.search(wanted))
        answer: SearchAnswer = {
            "query": body.query,
            "hits": [_hit(found) for found in result.found],
            "milliseconds": {"search": round(result.search_ms, 2), "rerank": round(result.rerank_ms, 2)},
        }
        return Json(answer)

    return router


def _hit(found: Found) -> HitOut:
    hit = found.hit
    return {
        "id": hit.id,
        "score": hit.score,
        "probability": hit.probability,
        "title": hit.title,
        "text": hit.text,
        "metadata": dict(hit.metadata),
        "stage": hit.stage,
        "span": None if hit.span is None else list(hit.span),
        "student_rank": found.student_rank,
        "student_score": found.student_score,
        "explanation": None if found.explanation is None else _explanation(found.explanation),
    }


def _explanation(why: Explanation) -> ExplanationOut:
    return {
        "log_odds": why.log_odds,
        "probability": sigmoid(why.log_odds),
        "bias": why.bias,
        "dimensions": [_share(share) for share in why.dimensions],
        "rest": why.rest,
    }


def _share(share: Share) -> ShareOut:
    return {
        "dimension": share.dimension,
        "query": share.query,
        "document": share.document,
        "contribution": share.contribution,
    }
