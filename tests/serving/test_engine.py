"""The worker and its queue: what is batched, what fails alone, what is given up, what comes back to life."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from rabtriever.errors import InputError
from rabtriever.serving.engine import Engine
from rabtriever.serving.failures import ServingError
from rabtriever.serving.queue import Kind
from rabtriever.serving.settings import Limits
from rabtriever.serving.ticket import Ticket, holding
from serving.doubles import Gated


@contextmanager
def running(compute: Any, limits: Limits | None = None) -> Iterator[Engine]:
    engine = Engine(dict.fromkeys(Kind, compute), limits)
    try:
        yield engine
    finally:
        if isinstance(compute, Gated):
            compute.open.set()
        assert engine.close(10)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def ask(engine: Engine, contents: Sequence[Any], seconds: float = 10, kind: Kind = Kind.QUERY) -> list[Any]:
    with holding(Ticket(seconds)):
        return engine.submit(kind, contents)


def until(condition: Any, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def queued(engine: Engine, pool: ThreadPoolExecutor, *requests: Any, **options: Any) -> list[Future[list[Any]]]:
    """Start requests one after the other, each once the one before it is in the queue."""
    futures = []
    for contents in requests:
        before = engine.queue.size
        futures.append(pool.submit(ask, engine, contents, **options))
        until(lambda before=before: engine.queue.size > before)
    return futures


def test_what_waits_is_computed_together_and_each_gets_its_own(pool: ThreadPoolExecutor) -> None:
    with running(Gated()) as engine:
        gate = engine._compute[Kind.QUERY]
        first = pool.submit(ask, engine, ["a"])
        assert gate.began.wait(5)
        others = queued(engine, pool, *[["x" * n, "y"] for n in range(2, 12)])
        gate.open.set()
        assert first.result() == [1]
        assert [one.result() for one in others] == [[n, 1] for n in range(2, 12)]
        assert [len(batch) for batch in gate.batches] == [1, 20]


def test_a_batch_keeps_to_its_tokens_and_the_most_urgent_goes_first(pool: ThreadPoolExecutor) -> None:
    with running(Gated(), Limits(batch_tokens=100)) as engine:  # a short text counts as 32
        gate = engine._compute[Kind.QUERY]
        first = pool.submit(ask, engine, ["first"])
        assert gate.began.wait(5)
        later = queued(engine, pool, ["a"] * 4, seconds=20)
        urgent = queued(engine, pool, ["b"], seconds=5)
        pairs = queued(engine, pool, ["c"], seconds=6, kind=Kind.PAIR)
        gate.open.set()
        for one in [first, *later, *urgent, *pairs]:
            one.result()
        assert gate.batches == [["first"], ["b", "a", "a"], ["c"], ["a", "a"]]


def test_a_bad_text_fails_alone(pool: ThreadPoolExecutor) -> None:
    def compute(texts: list[str]) -> list[int]:
        if "bad" in texts:
            raise InputError("no such word")
        return [len(text) for text in texts]

    gate = Gated()
    engine = Engine({Kind.QUERY: compute, Kind.DOCUMENT: gate})
    blocked = pool.submit(ask, engine, ["wait"], kind=Kind.DOCUMENT)
    assert gate.began.wait(5)
    futures = queued(engine, pool, ["good"], ["fine", "bad"], ["well"])
    gate.open.set()
    assert blocked.result() == [4]
    assert (futures[0].result(), futures[2].result()) == ([4], [4])
    with pytest.raises(InputError, match="no such word"):
        futures[1].result()
    assert engine.state == "ready"
    engine.close()


def test_what_does_not_fit_the_memory_is_computed_in_parts() -> None:
    sizes = []

    def compute(texts: list[str]) -> list[int]:
        sizes.append(len(texts))
        if len(texts) > 3:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return [len(text) for text in texts]

    with running(compute) as engine:
        assert ask(engine, ["x" * n for n in range(10)]) == list(range(10))
        assert sizes == [10, 5, 2, 3, 5, 2, 3]
        assert engine._metrics.out_of_memory._value.get() == 3


def test_a_text_that_never_fits_is_told_so() -> None:
    def compute(texts: list[str]) -> list[int]:
        raise MemoryError

    with running(compute) as engine, pytest.raises(ServingError) as caught:
        ask(engine, ["enormous"])
    assert (caught.value.status, caught.value.code) == (503, "out_of_memory")


def test_a_dead_worker_fails_what_it_held_and_is_replaced(pool: ThreadPoolExecutor) -> None:
    def compute(texts: list[str]) -> list[int]:
        if "die" in texts:
            raise SystemExit
        return [len(text) for text in texts]

    with running(compute) as engine:
        before = engine._thread
        with pytest.raises(ServingError) as caught:
            ask(engine, ["die"])
        assert (caught.value.status, caught.value.code) == (503, "worker_died")
        assert ask(engine, ["alive"]) == [5]
        until(lambda: engine._thread is not before)  # the new one answers, and only then is known by its name
        assert engine.state == "ready"
        assert engine._metrics.restarts._value.get() == 1


def test_a_model_that_fails_on_everything_is_not_ready_until_it_works_again() -> None:
    broken = threading.Event()
    broken.set()

    def compute(texts: list[str]) -> list[int]:
        if broken.is_set():
            raise ZeroDivisionError
        return [len(text) for text in texts]

    with running(compute) as engine:
        for _ in range(3):
            with pytest.raises(ServingError, match="the model failed"):
                ask(engine, ["x"])
        until(lambda: engine.state == "failing")
        broken.clear()
        assert ask(engine, ["x"]) == [1]
        until(lambda: engine.state == "ready")


def test_a_worker_that_hangs_is_stuck(pool: ThreadPoolExecutor) -> None:
    with running(Gated(), Limits(stuck_seconds=0.05)) as engine:
        pool.submit(ask, engine, ["x"])
        until(lambda: engine.state == "stuck")
        engine._compute[Kind.QUERY].open.set()
        until(lambda: engine.state == "ready")


def test_a_full_queue_sends_away_and_what_was_given_up_makes_room(pool: ThreadPoolExecutor) -> None:
    with running(Gated(), Limits(queued_texts=2)) as engine:
        gate = engine._compute[Kind.QUERY]
        pool.submit(ask, engine, ["x"])
        assert gate.began.wait(5)
        tickets = [Ticket(10), Ticket(10)]

        def one(ticket: Ticket) -> list[Any]:
            with holding(ticket):
                return engine.submit(Kind.QUERY, ["y"])

        waiting = [pool.submit(one, ticket) for ticket in tickets]
        until(lambda: engine.queue.size == 2)
        with pytest.raises(ServingError) as caught:
            ask(engine, ["z"])
        assert (caught.value.status, int(caught.value.headers["Retry-After"]) >= 1) == (429, True)
        for ticket in tickets:
            ticket.cancel()
        for future in waiting:
            with pytest.raises(ServingError, match="the client has gone"):
                future.result(5)
        last = pool.submit(ask, engine, ["z"])
        until(lambda: engine.queue.size == 1)
        gate.open.set()
        assert last.result(5) == [1]
        assert gate.batches == [["x"], ["z"]]


def test_time_that_is_over_ends_the_wait_and_the_work() -> None:
    with running(Gated()) as engine, ThreadPoolExecutor(2) as pool:
        gate = engine._compute[Kind.QUERY]
        first = pool.submit(ask, engine, ["x"])
        assert gate.began.wait(5)
        with pytest.raises(ServingError) as caught:
            ask(engine, ["late"], seconds=0.05)
        assert (caught.value.status, caught.value.code) == (504, "timeout")
        gate.open.set()
        assert first.result(5) == [1]
        assert ask(engine, ["y"]) == [1]
        assert ["late"] not in gate.batches


def test_closing_finishes_what_was_taken(pool: ThreadPoolExecutor) -> None:
    gate = Gated()
    engine = Engine({Kind.QUERY: gate})
    first = pool.submit(ask, engine, ["x"])
    assert gate.began.wait(5)
    second = queued(engine, pool, ["yy"])[0]
    closing = pool.submit(engine.close, 10)
    until(lambda: engine.state == "stopped")
    until(lambda: engine.queue._closed)
    with pytest.raises(ServingError) as caught:
        ask(engine, ["zzz"])
    assert caught.value.status == 503
    gate.open.set()
    assert (first.result(5), second.result(5), closing.result(5)) == ([1], [2], True)


def test_nothing_to_do_is_done_at_once() -> None:
    with running(Gated()) as engine:
        assert ask(engine, []) == []
