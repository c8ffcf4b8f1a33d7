"""The application: routes, errors in one shape, and what stands before them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from rabtriever import __version__
from rabtriever.errors import RabtrieverError
from rabtriever.serving.failures import error_body, status_of
from rabtriever.serving.gate import Gate, Observed
from rabtriever.serving.routes.documents import document_routes
from rabtriever.serving.routes.embeddings import embedding_routes
from rabtriever.serving.routes.operations import operation_routes
from rabtriever.serving.routes.page import add_page
from rabtriever.serving.routes.rationale import rationale_routes
from rabtriever.serving.routes.rerank import rerank_routes
from rabtriever.serving.routes.search import search_routes
from rabtriever.serving.schemas import ErrorAnswer
from rabtriever.serving.service import Service
from rabtriever.serving.serving import Json, Serving
from rabtriever.serving.settings import Settings

__all__ = ["create_app"]

_DESCRIPTION = (
    "Search an index of documents by reasoning, keep its documents, rerank and embed. "
    'Errors have the form `{"error": {"code", "message", "hint"}}`.'
)
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "Something in the request is wrong."},
    401: {"model": ErrorAnswer, "description": "An API key is needed."},
    403: {"model": ErrorAnswer, "description": "The API key may only read."},
    404: {"model": ErrorAnswer, "description": "There is no such thing."},
    413: {"model": ErrorAnswer, "description": "The request is too large."},
    422: {"model": ErrorAnswer, "description": "The request has another form than it should."},
    429: {"model": ErrorAnswer, "description": "Too many requests; `Retry-After` says when to come again."},
    503: {"model": ErrorAnswer, "description": "Not at the moment."},
    504: {"model": ErrorAnswer, "description": "The request took too long."},
}
_log = logging.getLogger("rabtriever.serving")


def create_app(service: Service, settings: Settings | None = None) -> FastAPI:
    """Make the application for one index. At its end it finishes what it accepted, and closes the service.

    Args:
        service: What answers.
        settings: Keys, origins and limits.

    Example:
        >>> with Service("skills.index") as service:                # doctest: +SKIP
        ...     uvicorn.run(create_app(service), port=8000)
    """
    settings = settings or Settings()
    serving = Serving.of(service, settings.limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await anyio.to_thread.run_sync(serving.close)

    app = FastAPI(
        title="Rabtriever",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other hosts
        redoc_url=None,
    )
    shown = [Depends(HTTPBearer(auto_error=False, description="Where the server was given API keys."))]
    for routes in (search_routes, rationale_routes, document_routes, rerank_routes, embedding_routes):
        app.include_router(routes(serving), responses=_ERRORS, dependencies=shown)
    app.include_router(operation_routes(serving))
    add_page(app)
    _add_errors(app)
    app.add_middleware(Gate, settings=settings)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(Observed, metrics=service.metrics)
    return app


def _add_errors(app: FastAPI) -> None:
    async def failed(_: Request, error: Exception) -> Response:
        assert isinstance(error, RabtrieverError)
        status = status_of(error)
        if status >= 500:
            _log.error("a request failed", extra={"event": "failed", "error": error.code, "status": status})
        body = error_body(error.code, error.message, error.hint)
        if status == 500:  # the message may name files of the server
            body = error_body(error.code, "the index or the model failed", "the server's log says when")
        return Json(body, status, getattr(error, "headers", None))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, RabtrieverError):  # raised while FastAPI was reading the body
            return await failed(request, error.__cause__)
        codes = {404: "not_found", 405: "wrong_method", 400: "bad_json"}
        message = {404: "there is nothing at this path", 405: "this path does not take this method"}
        body = error_body(
            codes.get(error.status_code, "bad_request"),
            message.get(error.status_code, "the body is not to be read"),
            "see /openapi.json",
        )
        return Json(body, error.status_code, error.headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        message = f"{place}: {first['msg']}" if place else str(first["msg"])
        return Json(error_body("invalid", message[:400], "see /openapi.json"), 422)

    app.add_exception_handler(RabtrieverError, failed)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
