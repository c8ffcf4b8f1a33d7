"""``/health``, ``/ready`` and ``/metrics``: for whoever runs the server."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from rabtriever.serving.failures import ServingError
from rabtriever.serving.schemas import ErrorAnswer, Status
from rabtriever.serving.serving import Json, Serving

__all__ = ["operation_routes"]

_MESSAGES = {
    "failing": "the model fails on whatever it is given",
    "stuck": "the worker has been in one batch for too long",
    "dead": "the worker is dead",
    "stopped": "the server is stopping",
    "full": "no more requests are taken for the moment",
}


def operation_routes(serving: Serving) -> APIRouter:
    """What orchestrators and monitors ask."""
    router, service = APIRouter(tags=["operations"]), serving.service
    unwell: dict[int | str, dict[str, Any]] = {503: {"model": ErrorAnswer, "description": "It is not."}}

    def told(status: str) -> Response:
        answer: Status = {
            "status": status,
            "documents": service.index.count,
            "queued_texts": service.engine.queue.size,
            "rationales": service.writer is not None,
        }
        return Json(answer)

    @router.get("/health", response_model=Status, responses=unwell)
    async def health() -> Response:
        """Whether the process is worth keeping: not when its worker is dead or stuck."""
        state = service.engine.state
        if state in ("stuck", "dead"):
            raise _unwell(state)
        return told("healthy")

    @router.get("/ready", response_model=Status, responses=unwell)
    async def ready() -> Response:
        """Whether a request sent now would be answered; a model that failed lately is tried again for this."""
        state = service.engine.state
        if state == "failing" and await asyncio.to_thread(service.probe):
            state = service.engine.state
        if state != "ready":
            raise _unwell(state)
        if serving.readers.full:
            raise _unwell("full")
        return told("ready")

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _unwell(state: str) -> ServingError:
    return ServingError(503, state, _MESSAGES[state], "try again in a moment", {"Retry-After": "5"})
