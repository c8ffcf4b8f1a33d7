"""Errors with an HTTP status, in the project's shape; what only the operator should know stays in the log."""

from __future__ import annotations

from collections.abc import Mapping

from rabtriever.errors import InputError, RabtrieverError

__all__ = ["ServingError", "busy", "error_body", "gone", "status_of", "stopping", "timed_out"]

_STATUS = {
    "locked": 503,
    "disk_full": 507,
    "not_finite": 500,
    "damaged": 500,
    "storage": 500,
    "mismatch": 500,
}
"""Errors of the library that are not the request's fault."""


class ServingError(RabtrieverError):
    """An error with the HTTP status that tells it.

    Args:
        status: The status.
        code: A stable name for programs.
        message: One sentence for people.
        hint: How to mend it.
        headers: Further headers of the response.
    """

    def __init__(
        self, status: int, code: str, message: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint, code)
        self.status = status
        self.headers = dict(headers or {})


def busy(what: str, seconds: float, code: str = "busy") -> ServingError:
    """The answer to a request that must come again later.

    Example:
        >>> busy("too many requests are waiting", 1.2).headers
        {'Retry-After': '2'}
    """
    wait = max(1, min(60, -int(-seconds // 1)))
    return ServingError(429, code, what, f"try again in {wait} s", {"Retry-After": str(wait)})


def timed_out() -> ServingError:
    """The answer when a request's time is over."""
    return ServingError(
        504, "timeout", "the request was given up: its time is over", "ask for less, or try again when it is quieter"
    )


def gone() -> ServingError:
    """What ends the work for a client that no longer listens; nobody reads it."""
    return ServingError(499, "client_gone", "the client has gone")


def stopping() -> ServingError:
    """The answer while the server ends."""
    return ServingError(503, "stopping", "the server is stopping", "try again in a moment", {"Retry-After": "5"})


def status_of(error: RabtrieverError) -> int:
    """The HTTP status for an error of the library.

    Example:
        >>> status_of(InputError("k must be 1")), status_of(InputError("no room", code="disk_full"))
        (400, 507)
    """
    if isinstance(error, ServingError):
        return error.status
    return _STATUS.get(error.code, 400 if isinstance(error, InputError) else 500)


def error_body(code: str, message: str, hint: str = "") -> dict[str, dict[str, str]]:
    r"""The body of an error; lone surrogates, which no UTF-8 can carry, become question marks.

    Example:
        >>> error_body("bad_input", "found \ud800")
        {'error': {'code': 'bad_input', 'message': 'found ?', 'hint': ''}}
    """
    parts = {"code": code, "message": message, "hint": hint}
    return {"error": {name: part.encode("utf-8", "replace").decode("utf-8") for name, part in parts.items()}}
