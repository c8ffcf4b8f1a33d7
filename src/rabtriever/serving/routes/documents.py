"""``/v1/documents``: store, show and delete."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from rabtriever.data.records import check_id
from rabtriever.errors import DataError
from rabtriever.serving.failures import ServingError
from rabtriever.serving.schemas import Added, Deleted, DocumentOut, Documents, ErrorAnswer
from rabtriever.serving.serving import Json, Serving

__all__ = ["document_routes"]


def document_routes(serving: Serving) -> APIRouter:
    """Keeping documents."""
    router, service = APIRouter(tags=["documents"]), serving.service
    missing: dict[int | str, dict[str, Any]] = {404: {"model": ErrorAnswer, "description": "No document has this id."}}

    @router.post("/v1/documents", response_model=Added)
    async def store(body: Documents, request: Request) -> Response:
        """Add documents, and replace those whose ids are there: all of them, or none. What is answered is on disk."""
        serving.check_count("documents", len(body.documents))
        serving.check_texts(part for document in body.documents for part in (document.title, document.text))
        documents = [document.model_dump() for document in body.documents]
        counts = await serving.write(request, lambda: service.upsert(documents))
        answer: Added = {
            "added": counts.added,
            "updated": counts.updated,
            "unchanged": counts.unchanged,
            "documents": service.index.count,
        }
        return Json(answer)

    @router.get("/v1/documents/{id:path}", response_model=DocumentOut, responses=missing)
    async def show(id: str, request: Request) -> Response:
        """Show a document."""
        _check(id)
        document = await serving.read(request, lambda: service.get(id))
        answer: DocumentOut = {
            "id": document.id,
            "title": document.title,
            "text": document.text,
            "metadata": dict(document.metadata),
        }
        return Json(answer)

    @router.delete("/v1/documents/{id:path}", response_model=Deleted, responses=missing)
    async def delete(id: str, request: Request) -> Response:
        """Delete a document. What is answered is on disk."""
        _check(id)
        await serving.write(request, lambda: service.delete(id))
        answer: Deleted = {"deleted": 1, "documents": service.index.count}
        return Json(answer)

    return router


def _check(id: str) -> None:
    """Pass by what cannot be an id, since no document has it."""
    try:
        check_id(id, "the path", "id")
    except DataError as error:
        raise ServingError(404, "unknown_document", "no document has this id", error.message) from None
