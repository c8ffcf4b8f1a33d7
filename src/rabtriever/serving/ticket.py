"""How long a request may take, and whether anybody still waits for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any

from rabtriever.serving.failures import gone, timed_out

__all__ = ["Ticket", "current_ticket", "holding"]


class Ticket:
    """One request's deadline and its right to be given up.

    Args:
        seconds: From now to the deadline.

    Attributes:
        deadline: In seconds of ``time.monotonic``.

    Example:
        >>> ticket = Ticket(10)
        >>> ticket.alive
        True
        >>> ticket.cancel()
        >>> ticket.alive
        False
    """

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self._lock = Lock()
        self._cancelled = False
        self._waiting: set[Future[Any]] = set()

    @property
    def remaining(self) -> float:
        """Seconds that are left, 0 at least."""
        return max(0.0, self.deadline - time.monotonic())

    @property
    def alive(self) -> bool:
        """Whether the answer is still wanted."""
        return not self._cancelled and time.monotonic() < self.deadline

    def check(self) -> None:
        """Go on only if the answer is still wanted.

        Raises:
            ServingError: It is not.
        """
        if self._cancelled:
            raise gone()
        if not self.alive:
            raise timed_out()

    def cancel(self) -> None:
        """Give the request up, and wake whoever waits for its work."""
        with self._lock:
            self._cancelled = True
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            future.cancel()

    @contextmanager
    def waiting_for(self, future: Future[Any]) -> Iterator[None]:
        """Let :meth:`cancel` end the wait for a future."""
        with self._lock:
            self._waiting.add(future)
            late = self._cancelled
        if late:
            future.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(future)


_CURRENT: ContextVar[Ticket | None] = ContextVar("rabtriever_ticket", default=None)
_UNLIMITED = 3600.0


def current_ticket() -> Ticket:
    """The ticket of the request that this thread works for; outside of any, one of an hour."""
    return _CURRENT.get() or Ticket(_UNLIMITED)


@contextmanager
def holding(ticket: Ticket) -> Iterator[Ticket]:
    """Work for a request.

    Example:
        >>> with holding(Ticket(10)) as ticket:
        ...     current_ticket() is ticket
        True
    """
    token = _CURRENT.set(ticket)
    try:
        yield ticket
    finally:
        _CURRENT.reset(token)
