"""Work on parts of an array in all processors at once, by functions that let go of Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

__all__ = ["in_parallel", "processors"]

_Part = TypeVar("_Part")
_Made = TypeVar("_Made")


def in_parallel(work: Callable[[_Part], _Made], parts: Sequence[_Part]) -> list[_Made]:
    """``[work(part) for part in parts]``, several at a time; a single part is done at once and here.

    ``work`` must not call this function itself.

    Example:
        >>> in_parallel(abs, [-1, 2, -3])
        [1, 2, 3]
    """
    if len(parts) <= 1:
        return [work(part) for part in parts]
    return list(_pool().map(work, parts))


def processors() -> int:
    """How many processors this process may use; the environment's ``OMP_NUM_THREADS`` may make them fewer."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(there, int(wanted)) if wanted.isdigit() and int(wanted) else there


@cache
def _pool() -> ThreadPoolExecutor:
    """One for the process, so that many searches at once do not start many threads each."""
    return ThreadPoolExecutor(processors(), thread_name_prefix="rabtriever-scan")
