"""Bring an engine to what an index holds: write what is new or changed, delete what is gone, leave the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rabtriever.errors import MismatchError
from rabtriever.index import Index
from rabtriever.progress import SilentProgress
from rabtriever.push.engine import NAME, Engine, Kind, connect, shown
from rabtriever.push.points import Point, model_name, points_of

if TYPE_CHECKING:
    from rabtriever.progress import Progress

__all__ = ["Pushed", "check_model", "push"]

_DOCUMENTS = 256
_POINTS = 128
_CHARACTERS = 1 << 21
"""Of one request at most: servers refuse requests of some tens of megabytes."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """What :func:`push` did, in points: a document has one, or one for each of its passages.

    Attributes:
        written: Points that were new or had changed.
        unchanged: Points that were there already.
        deleted: Points that belong to no document any more.
        cut: Points whose text is longer than the engine can hold, and ends early there.
    """

    written: int
    unchanged: int
    deleted: int
    cut: int


def push(index: str | Path, kind: Kind, url: str, *, name: str = NAME, progress: Progress | None = None) -> Pushed:
    """Write an index's vectors, texts and metadata into another engine; no model is loaded.

    The same call again brings the engine up to date: what it has is compared and not sent again, so a push that was
    interrupted goes on where it stopped. Searches in the engine see a document as soon as it is written. Memory: one
    batch, and about a hundred bytes for each vector.

    Args:
        index: The index's folder; one version of it is read, whatever is written meanwhile.
        kind: The engine.
        url: Where it is: see :class:`~rabtriever.push.qdrant.Qdrant`, :class:`~rabtriever.push.milvus.Milvus` and
            :class:`~rabtriever.push.pgvector.PgVector`.
        name: The collection, or table; made where it is missing.
        progress: Where to report.

    Raises:
        InputError: There is no index, or the engine cannot be reached, or the name is taken by something else.
        MismatchError: The engine holds another model's vectors under this name.
        DataError: A document or a vector is damaged.

    Example:
        >>> push("my-index", "qdrant", "http://localhost:6333")     # doctest: +SKIP
        Pushed(written=1403, unchanged=0, deleted=0, cut=0)
    """
    with Index.open(index) as opened, closing(connect(kind, url, name)) as engine:
        model = model_name(opened.description.model.of_vectors)
        engine.prepare(opened.description.dimension)
        check_model(engine, [model], f"{kind} at {shown(url)}, {name}")
        written = cut = 0
        seen: set[str] = set()
        task = (progress or SilentProgress()).task("push documents", total=opened.count, unit="documents")
        with task as counter:
            for batch in opened.vectors(_DOCUMENTS):
                for points in _requests(points_of(batch, model, engine.longest_text)):
                    there = engine.stamps([point.key for point in points])
                    fresh = [point for point in points if there.get(point.key) != point.stamp]
                    if fresh:
                        engine.write(fresh)
                    written += len(fresh)
                    cut += sum(point.cut for point in points)
                    seen.update(point.key for point in points)
                counter.advance(len(batch.documents))
        return Pushed(written, len(seen) - written, _delete_others(engine, seen), cut)


def check_model(engine: Engine, names: Sequence[str], place: str) -> None:
    """Refuse to mix two models' vectors, or to search one's with the other.

    Args:
        engine: Holds them.
        names: What the model's vectors may be called there.
        place: Where that is, for the message.

    Raises:
        MismatchError: The engine holds another model's vectors.
    """
    found = engine.model()
    if found is not None and found not in names:
        raise MismatchError(
            f"{place} holds vectors of another model ({found}, not {names[0]})",
            hint="choose another name (--name), and drop the former one when nobody searches it any more",
        )


def _requests(points: Iterable[Point]) -> Iterator[list[Point]]:
    """Points by the request."""
    chosen: list[Point] = []
    size = 0
    for point in points:
        length = len(point.text) + len(point.title)
        if chosen and (len(chosen) == _POINTS or size + length > _CHARACTERS):
            yield chosen
            chosen, size = [], 0
        chosen.append(point)
        size += length
    if chosen:
        yield chosen


def _delete_others(engine: Engine, kept: set[str]) -> int:
    if engine.count() == len(kept):  # all of those are there, so there are no others
        return 0
    gone = [key for keys in engine.all_keys() for key in keys if key not in kept]
    for start in range(0, len(gone), _POINTS):
        engine.delete(gone[start : start + _POINTS])
    return len(gone)
