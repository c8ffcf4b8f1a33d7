"""How a request gets a thread: so many wait at most, each for so long, and none for a client that has gone."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal, TypeVar

from starlette.requests import Request

from rabtriever.serving.failures import busy, gone, stopping, timed_out
from rabtriever.serving.metrics import Metrics
from rabtriever.serving.ticket import Ticket, holding

__all__ = ["Admission"]

T = TypeVar("T")


class Admission:
    """A bounded pool of threads for requests.

    A request that is given up keeps its place until its thread has noticed, so that the bound stays true.

    Args:
        pool: ``read`` or ``write``, for the metrics.
        threads: Requests worked on at once; one for a writer.
        limit: Requests under way or waiting.
        seconds: What each may take.
        metrics: Where to count.
    """

    def __init__(
        self, pool: Literal["read", "write"], threads: int, limit: int, seconds: float, metrics: Metrics
    ) -> None:
        self._limit, self._seconds, self._threads = limit, seconds, threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"rabtriever-{pool}")
        self._typical = 1.0
        self.pending = 0
        metrics.pending.labels(pool).set_function(lambda: self.pending)

    @property
    def full(self) -> bool:
        """Whether the next request would be sent away."""
        return self.pending >= self._limit

    async def run(self, request: Request, work: Callable[[], T]) -> T:
        """Do a request's work in a thread.

        Args:
            request: Whose body has been read; its client is watched.
            work: What to do; whatever it asks of the engine carries the request's deadline.

        Raises:
            ServingError: Too many requests wait (429), the time is over (504), or the client has gone.
        """
        if self.full:
            raise busy("too many requests are waiting", self._typical * self.pending / self._threads)
        loop, ticket = asyncio.get_running_loop(), Ticket(self._seconds)
        began = time.monotonic()

        def leave() -> None:
            self.pending -= 1
            self._typical = 0.9 * self._typical + 0.1 * (time.monotonic() - began)

        def call() -> T:
            try:
                with holding(ticket):
                    ticket.check()
                    return work()
            finally:
                with suppress(RuntimeError):  # the loop may have ended meanwhile
                    loop.call_soon_threadsafe(leave)

        try:
            working = loop.run_in_executor(self._pool, contextvars.copy_context().run, call)
        except RuntimeError:  # the pool has been closed
            raise stopping() from None
        self.pending += 1
        working.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask
        watching = asyncio.create_task(_client_leaves(request))
        try:
            both: set[asyncio.Future[Any]] = {working, watching}
            done, _ = await asyncio.wait(both, timeout=ticket.remaining, return_when=asyncio.FIRST_COMPLETED)
            if working in done:
                return working.result()
            raise gone() if watching in done else timed_out()
        finally:
            watching.cancel()
            if not working.done():
                ticket.cancel()

    def close(self) -> None:
        """Wait for the work under way."""
        self._pool.shutdown(wait=True)


async def _client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
