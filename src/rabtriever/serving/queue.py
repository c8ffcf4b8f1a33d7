"""What waits for the language model: texts of many requests, those with the earliest deadline first."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from threading import Condition
from typing import Any

from rabtriever.serving.failures import busy, stopping, timed_out
from rabtriever.serving.ticket import Ticket

__all__ = ["Item", "Job", "Kind", "WorkQueue"]

_CHARACTERS_PER_TOKEN = 4
_FRAME_TOKENS = 32


class Kind(StrEnum):
    """What the model is to do; only work of one kind is computed together."""

    QUERY = "query"
    DOCUMENT = "document"
    PAIR = "pair"
    TOKENS = "tokens"
    RATIONALE = "rationale"


class Job:
    """What one request wants of the model: a result for each of its texts.

    Args:
        kind: What is to be done.
        contents: The texts, or the (query, document) pairs.
        ticket: The request's.

    Attributes:
        future: The results, in the order given, or the first error.
    """

    def __init__(self, kind: Kind, contents: Sequence[Any], ticket: Ticket) -> None:
        self.kind, self.ticket = kind, ticket
        self.future: Future[list[Any]] = Future()
        self._results: list[Any] = [None] * len(contents)
        self._missing = len(contents)
        self.items = [Item(self, position, content, _estimate(content)) for position, content in enumerate(contents)]
        if not contents:
            self.future.set_result([])

    @property
    def alive(self) -> bool:
        """Whether its results are still wanted."""
        return self.ticket.alive and not self.future.done()

    def finish(self, position: int, result: Any) -> None:
        """Take one result; the last one completes the job. Called by the worker alone."""
        self._results[position] = result
        self._missing -= 1
        if not self._missing:
            with suppress(InvalidStateError):  # given up meanwhile
                self.future.set_result(self._results)

    def fail(self, error: Exception) -> None:
        """End the job with an error."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(slots=True, eq=False)
class Item:
    """One text (or pair) of a job."""

    job: Job
    position: int
    content: Any
    tokens: int


@dataclass
class WorkQueue:
    """A bounded queue of items, from which batches are taken.

    Attributes:
        limit: While so many items wait, no further job is taken.
        size: How many items wait.
        seconds_per_item: What an item took lately, for ``Retry-After``.
    """

    limit: int
    size: int = 0
    seconds_per_item: float = 0.02
    _heaps: dict[Kind, list[tuple[float, int, Item]]] = field(default_factory=lambda: {kind: [] for kind in Kind})
    _closed: bool = False
    _numbers: Any = field(default_factory=count)
    _changed: Condition = field(default_factory=Condition)

    def put(self, job: Job) -> None:
        """Take a job.

        Raises:
            ServingError: Too much is waiting, or the server is stopping.
        """
        with self._changed:
            if self._closed:
                raise stopping()
            if self.size >= self.limit:
                self._drop_dead()
            if self.size >= self.limit:
                raise busy("too much work is waiting for the model", self.size * self.seconds_per_item)
            for item in job.items:
                heapq.heappush(self._heaps[job.kind], (job.ticket.deadline, next(self._numbers), item))
            self.size += len(job.items)
            self._changed.notify()

    def take(self, budget: int) -> list[Item]:
        """Wait for work and take a batch of one kind: the most urgent item, and what fits beside it.

        Args:
            budget: Estimated tokens that the batch may hold; a single item may hold more.

        Returns:
            The batch; empty when the queue is closed and nothing is left.
        """
        with self._changed:
            while not (ready := [heap for heap in self._heaps.values() if self._first_alive(heap)]):
                if self._closed:
                    return []
                self._changed.wait()
            heap = min(ready, key=lambda one: one[0][:2])
            batch = [self._pop(heap)]
            tokens = batch[0].tokens
            while self._first_alive(heap) and tokens + heap[0][2].tokens <= budget:
                batch.append(self._pop(heap))
                tokens += batch[-1].tokens
            return batch

    def close(self) -> None:
        """Take no more jobs; what waits is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pop(self, heap: list[tuple[float, int, Item]]) -> Item:
        self.size -= 1
        return heapq.heappop(heap)[2]

    def _first_alive(self, heap: list[tuple[float, int, Item]]) -> bool:
        """Drop what nobody waits for any more from the head of a heap; tell whether anything is left."""
        while heap and not heap[0][2].job.alive:
            job = self._pop(heap).job
            if job.ticket.deadline <= time.monotonic():
                job.fail(timed_out())
        return bool(heap)

    def _drop_dead(self) -> None:
        """Make room: what was given up may stand anywhere in a heap."""
        for kind, heap in self._heaps.items():
            self._heaps[kind] = [entry for entry in heap if entry[2].job.alive]
            heapq.heapify(self._heaps[kind])
        self.size = sum(map(len, self._heaps.values()))


def _estimate(content: str | tuple[str, ...]) -> int:
    """About how many tokens a text has; counting them would be the work that is being planned."""
    characters = len(content) if isinstance(content, str) else sum(len(part) for part in content[:2])
    return _FRAME_TOKENS + characters // _CHARACTERS_PER_TOKEN
