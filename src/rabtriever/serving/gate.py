"""What stands before the routes: host names, API keys, the rate limit and the size of a request.

All of it is decided before a byte of the body is parsed.
"""

from __future__ import annotations

import logging
import time
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rabtriever.serving.access import Caller, RateLimit
from rabtriever.serving.access import Scope as Right
from rabtriever.serving.failures import ServingError, error_body
from rabtriever.serving.metrics import Metrics
from rabtriever.serving.serving import Json
from rabtriever.serving.settings import Settings

__all__ = ["Gate", "Observed", "right_for"]

_OPEN = ("/", "/health", "/ready", "/openapi.json")
_log = logging.getLogger("rabtriever.serving")


def right_for(method: str, path: str) -> Right | None:
    """What a key must allow for a request; None where no key is needed.

    Example:
        >>> right_for("GET", "/health"), right_for("POST", "/v1/search"), right_for("DELETE", "/v1/documents/d1")
        (None, 'read', 'write')
    """
    if method in ("GET", "HEAD") and (path in _OPEN or path.startswith("/page/")):
        return None
    if path.startswith("/v1/documents") and method not in ("GET", "HEAD"):
        return "write"
    return "read"


class Gate:
    """Lets in whom the settings let in.

    Args:
        app: What is behind.
        settings: Keys, hosts and limits.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._rate = RateLimit(settings.limits.per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limited = _Limited(receive, self._settings.limits.body_bytes)
        try:
            scope.setdefault("state", {})["caller"] = self._admit(scope)
            limited.check(Headers(scope=scope).get("content-length"))
        except ServingError as error:
            await refusal(error)(scope, receive, send)
            return
        await self._app(scope, limited, send)

    def _admit(self, scope: Scope) -> Caller:
        headers, right = Headers(scope=scope), right_for(scope["method"], scope["path"])
        if self._settings.hosts is not None and _host(headers.get("host", "")) not in self._settings.hosts:
            raise ServingError(
                421,
                "wrong_host",
                "this server is not addressed by that host name",
                "use 127.0.0.1, or give it API keys",
            )
        address = scope["client"][0] if scope.get("client") else "unknown"
        caller = Caller(address, "write")
        if right is not None:
            if self._settings.keys is not None:
                caller = self._settings.keys.admit(headers.get("authorization"), right)
            self._rate.spend(caller.name)
        return caller


class _Limited:
    """A body of bounded size, however it is sent."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._seen = receive, limit, 0

    def check(self, length: str | None) -> None:
        if length is not None and length.isascii() and length.isdigit() and int(length[:20]) > self._limit:
            raise self._too_large()

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            raise self._too_large()
        return message

    def _too_large(self) -> ServingError:
        return ServingError(
            413,
            "request_too_large",
            f"the request is larger than {self._limit} bytes",
            "send fewer documents at a time",
            {"Connection": "close"},
        )


class Observed:
    """Gives every request an id, counts it, logs it in one line, and lets no exception through.

    Args:
        app: What is behind.
        metrics: Where to count.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, number = time.perf_counter(), 0, uuid4().hex

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = number
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            _log.error("a fault of ours", extra={"event": "fault", "request": number, "error": _place(error)})
            if status:
                raise
            await refusal(ServingError(500, "internal", "a fault of the server", "its log says more"))(
                scope, receive, sent
            )
        finally:
            self._tell(scope, number, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, number: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(scope["method"] if route != "unmatched" else "", route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        caller = scope.get("state", {}).get("caller")
        _log.info(
            "request",
            extra={
                "event": "request",
                "request": number,
                "method": scope["method"],
                "route": route,
                "status": status,
                "ms": round(1000 * seconds, 1),
                "caller": caller.name if isinstance(caller, Caller) else None,
            },
        )


def refusal(error: ServingError) -> Json:
    """An error as a response."""
    return Json(error_body(error.code, error.message, error.hint), error.status, error.headers)


def _host(value: str) -> str:
    """The name in a ``Host`` header, without the port."""
    name, _, port = value.rpartition(":")
    return (name if name and port.isdigit() else value).lower()


def _place(error: BaseException) -> str:
    """An exception's type and place: its message may quote a document."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" at {trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
    return type(error).__name__ + place
