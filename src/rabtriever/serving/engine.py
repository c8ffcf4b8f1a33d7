"""The one thread that runs the language model: batch by batch, and no batch takes another with it."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from threading import Thread
from typing import Any, Literal

from rabtriever.errors import RabtrieverError
from rabtriever.serving.failures import ServingError, gone, timed_out
from rabtriever.serving.metrics import Metrics
from rabtriever.serving.queue import Item, Job, Kind, WorkQueue
from rabtriever.serving.settings import Limits
from rabtriever.serving.ticket import current_ticket

__all__ = ["Compute", "Engine", "State"]

Compute = Callable[[Any], Any]
"""Computes a list of contents: a sequence or array of one result for each, the same as if it had come alone."""

State = Literal["ready", "failing", "stuck", "dead", "stopped"]

_FAILING_AFTER = 3
_log = logging.getLogger("rabtriever.serving")


class Engine:
    """Runs work of the model in one thread, in batches made of what many requests want.

    A batch that fails is halved until what fails stands alone: so an error is told to the request that caused it and
    to no other, and what is too large for the memory together is computed in parts. A thread that dies fails what it
    held and is replaced.

    Args:
        compute: What computes a batch of each kind.
        limits: See :class:`rabtriever.serving.settings.Limits`.
        metrics: Where to count.

    Example:
        >>> engine = Engine({Kind.QUERY: lambda texts: [len(text) for text in texts]})
        >>> engine.submit(Kind.QUERY, ["find", "a", "sponge"])
        [4, 1, 6]
        >>> engine.close()
        True
    """

    def __init__(
        self, compute: Mapping[Kind, Compute], limits: Limits | None = None, metrics: Metrics | None = None
    ) -> None:
        self._compute, self._limits, self._metrics = compute, limits or Limits(), metrics or Metrics()
        self.queue = WorkQueue(self._limits.queued_texts)
        self._metrics.queued.set_function(lambda: self.queue.size)
        self._busy_since: float | None = None
        self._failures = 0
        self._stopped = False
        self._thread = self._start()

    @property
    def state(self) -> State:
        """What there is to know about the worker at this moment."""
        if self._stopped:
            return "stopped"
        if not self._thread.is_alive():
            return "dead"
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._limits.stuck_seconds:
            return "stuck"
        return "failing" if self._failures >= _FAILING_AFTER else "ready"

    def submit(self, kind: Kind, contents: Sequence[Any]) -> list[Any]:
        """Have contents computed, and wait for the results as long as the current request may.

        Raises:
            ServingError: The queue is full, the time is over, the request was given up, the memory does not suffice,
                or the model failed.
            RabtrieverError: What the model says about one of the contents.
        """
        ticket = current_ticket()
        ticket.check()
        job = Job(kind, contents, ticket)
        if not job.items:
            return []
        with ticket.waiting_for(job.future):
            self.queue.put(job)
            try:
                return job.future.result(timeout=ticket.remaining)
            except CancelledError:
                raise gone() from None
            except TimeoutError:
                job.future.cancel()
                raise timed_out() from None

    def close(self, seconds: float = 30.0) -> bool:
        """Finish what waits, take no more, and tell whether that was done in time."""
        self._stopped = True
        self.queue.close()
        end = time.monotonic() + seconds
        while self._thread.is_alive() and time.monotonic() < end:
            self._thread.join(0.1)  # again and again: one that dies leaves the rest to the next
        return not self._thread.is_alive()

    def _start(self) -> Thread:
        thread = Thread(target=self._run, name="rabtriever-model", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        batch: list[Item] = []
        try:
            while batch := self.queue.take(self._limits.batch_tokens):
                self._one(batch)
                batch = []
        except BaseException as error:  # nothing may end this thread unnoticed, SystemExit included
            _log.error("the worker died", extra={"event": "worker_died", "error": type(error).__name__})
            for item in batch:
                item.job.fail(ServingError(503, "worker_died", "the worker died of this batch", "try again"))
            self._failures += 1
            self._busy_since = None
            time.sleep(min(1.0, 0.01 * self._failures))  # one that dies at once, every time, is not to burn a core
            self._metrics.restarts.inc()
            self._thread = self._start()

    def _one(self, batch: list[Item]) -> None:
        began = self._busy_since = time.monotonic()
        done = self._batch(batch)
        self._busy_since = None
        self._failures = 0 if done else self._failures + 1
        seconds = time.monotonic() - began
        self.queue.seconds_per_item = 0.8 * self.queue.seconds_per_item + 0.2 * seconds / len(batch)
        self._metrics.batch_texts.labels(batch[0].job.kind).observe(len(batch))
        self._metrics.batch_seconds.labels(batch[0].job.kind).observe(seconds)

    def _batch(self, items: list[Item]) -> bool:
        """Compute items, halving where that fails; tell whether the model is in order as far as this shows."""
        items = [item for item in items if item.job.alive]
        if not items:
            return True
        error = self._attempt(items)
        if error is None:
            return True
        if _out_of_memory(error):
            self._metrics.out_of_memory.inc()
            _release_memory()
        if len(items) > 1:
            middle = len(items) // 2
            first, second = self._batch(items[:middle]), self._batch(items[middle:])
            return first or second
        told = _told(error)
        items[0].job.fail(told)
        return not isinstance(told, ServingError)

    def _attempt(self, items: list[Item]) -> Exception | None:
        try:
            results = self._compute[items[0].job.kind]([item.content for item in items])
            if len(results) != len(items):
                raise RuntimeError(f"{len(results)} results for {len(items)} contents")
        except Exception as error:
            return error.with_traceback(None)  # with its frames goes what the failed batch held in memory
        for item, result in zip(items, results, strict=True):
            item.job.finish(item.position, result)
        return None


def _told(error: Exception) -> RabtrieverError:
    """What the request that an error belongs to is told."""
    if isinstance(error, RabtrieverError):
        return error
    if _out_of_memory(error):
        return ServingError(503, "out_of_memory", "the memory does not suffice for this text", "send shorter texts")
    _log.error("the model failed", extra={"event": "model_failed", "error": type(error).__name__})
    return ServingError(500, "model_failed", "the model failed on this text", "the server's log says when")


def _out_of_memory(error: Exception) -> bool:
    """CUDA raises a type of its own, CPU allocators a plain RuntimeError."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _release_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
