"""What another engine must be able to do to hold an index, and how to reach one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args
from urllib.parse import urlsplit

from rabtriever.errors import InputError, package_missing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rabtriever.push.points import Found, Point

__all__ = ["NAME", "Engine", "Kind", "check_width", "checked_kind", "connect", "engine_errors", "shown"]

Kind = Literal["qdrant", "milvus", "pgvector"]
NAME = "rabtriever"
"""Of the collection, or table, where none is given."""

_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class Engine(Protocol):
    """One collection, or table, of points in another engine.

    Every method raises ``InputError`` where the engine cannot be reached or refuses.
    """

    longest_text: int | None
    """Bytes of UTF-8 that it can hold of a text; None for any number."""
    most: int | None
    """Points that :meth:`nearest` returns at most; None for any number."""

    def exists(self) -> bool:
        """Whether the collection is there."""

    def prepare(self, dimension: int) -> None:
        """Make the collection, or see that the one that is there holds points of this width."""

    def model(self) -> str | None:
        """The model of some point; None where there are no points."""

    def stamps(self, keys: Sequence[str]) -> dict[str, str]:
        """The stamps of those of these points that are there."""

    def write(self, points: Sequence[Point]) -> None:
        """Store points, replacing those with the same keys; when it returns, they are stored."""

    def all_keys(self) -> Iterator[list[str]]:
        """The keys of all points, some at a time."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete points."""

    def count(self) -> int:
        """How many points there are."""

    def nearest(self, query: NDArray[np.float32], limit: int) -> list[Found]:
        """The points with the largest inner products with ``query`` ``(k,)``, exactly and best first."""

    def close(self) -> None:
        """Let go of the connection."""


def checked_kind(name: str) -> Kind:
    """An engine by its name.

    Raises:
        InputError: There is none of this name.

    Example:
        >>> checked_kind("qdrant")
        'qdrant'
    """
    for kind in get_args(Kind):
        if name == kind:
            return cast("Kind", kind)
    raise InputError(f"unknown engine {name!r}", hint=f"one of {', '.join(get_args(Kind))}")


def connect(kind: Kind, url: str, name: str = NAME) -> Engine:
    """Connect to an engine.

    Args:
        kind: Which one.
        url: Where it is: see the class of each engine.
        name: The collection, or table.

    Raises:
        InputError: The name cannot be one, the engine's package is not installed, or it cannot be reached.
    """
    checked_kind(kind)
    if not _NAMES.fullmatch(name):
        raise InputError(
            f"{name!r} cannot name a collection", hint="use up to 63 letters, digits and underscores, no digit first"
        )
    try:
        if kind == "qdrant":
            from rabtriever.push.qdrant import Qdrant

            return Qdrant(url, name)
        if kind == "milvus":
            from rabtriever.push.milvus import Milvus

            return Milvus(url, name)
        from rabtriever.push.pgvector import PgVector

        return PgVector(url, name)
    except ModuleNotFoundError as error:
        raise package_missing(kind, error, kind) from error


@contextmanager
def engine_errors(label: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what an engine's client raises into one sentence.

    Args:
        label: The engine and where it is.
        kinds: The client's exceptions.

    Raises:
        InputError: In place of those (code ``engine``).

    Example:
        >>> with engine_errors("Qdrant at localhost", ValueError):
        ...     raise ValueError("it is full")
        Traceback (most recent call last):
        rabtriever.errors.InputError: Qdrant at localhost: it is full; see that it runs, then run the same again
    """
    try:
        yield
    except kinds as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{label}: {reason}", hint="see that it runs, then run the same again", code="engine"
        ) from error


def shown(url: str) -> str:
    """A URL without the password that it may hold.

    Example:
        >>> shown("postgresql://me:secret@host/db?sslmode=require"), shown("folder/qdrant")
        ('postgresql://host/db', 'folder/qdrant')
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the URL given"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if "://" in url else url


def check_width(label: str, name: str, found: int | None, dimension: int) -> None:
    """Refuse a collection that was not made for these vectors.

    Raises:
        InputError: Its vectors have another width, or it is something else altogether (``found`` is None).
    """
    if found != dimension:
        state = "holds something else" if found is None else f"holds vectors of {found} numbers, not {dimension}"
        raise InputError(f"{label}: {name} {state}", hint="choose another name (--name)")
