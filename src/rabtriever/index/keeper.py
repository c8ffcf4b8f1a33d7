"""The cache of an index in use, built anew beside it."""

from __future__ import annotations

import logging
from threading import Lock, Thread
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rabtriever.index.index import Index

__all__ = ["CacheKeeper", "wants_cache"]

_LEAST = 20_000
"""Documents from which a cache is worth its disk: below, a plain pass over the vectors takes milliseconds."""
_SHARE = 0.1

_log = logging.getLogger("rabtriever.index")


def wants_cache(index: Index, least: int = _LEAST, share: float = _SHARE) -> bool:
    """Whether an index of so many documents has more than this share of them outside of its cache, or has none."""
    return index.count >= least and index.uncached > share * index.count


class CacheKeeper:
    """Builds an index's cache in a thread of its own whenever it is absent, damaged or too far behind.

    Searches go on meanwhile, without the new cache and never with wrong hits: what a cache does not hold is searched
    exactly beside it.

    Args:
        index: The index, which has its model.
        least: Documents from which there is to be a cache.
        share: The share of the documents from which on those outside of the cache are too many.

    Attributes:
        error: What the last build failed with, or None.

    Example:
        >>> index = Index.open("skills.index")                                  # doctest: +SKIP
        >>> with CacheKeeper(index) as keeper:                                  # doctest: +SKIP
        ...     index.add(documents)
        ...     keeper.look()  # returns at once
    """

    def __init__(self, index: Index, *, least: int = _LEAST, share: float = _SHARE) -> None:
        self.error: Exception | None = None
        self._index, self._least, self._share = index, least, share
        self._lock = Lock()
        self._thread: Thread | None = None
        self._again = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def look(self) -> None:
        """See to the cache after a change; returns at once, and does nothing that is under way already."""
        if self._index.count < self._least:
            return
        with self._lock:
            self._again = True
            if self._thread is None:
                self._thread = Thread(target=self._work, name="rabtriever-cache", daemon=True)
                self._thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for a build that is under way; whether none is any more."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def _work(self) -> None:
        while self._is_wanted():
            try:
                if wants_cache(self._index, self._least, self._share):
                    self._index.accelerate()
                self.error = None
            except Exception as error:  # it is a cache: whatever it fails with, searches go on without
                self.error = error
                _log.warning("the cache of %s was not built: %s", self._index.path, error)

    def _is_wanted(self) -> bool:
        """Whether something was changed since the last look; if not, this thread is done."""
        with self._lock:
            wanted, self._again = self._again, False
            if not wanted:
                self._thread = None
            return wanted
