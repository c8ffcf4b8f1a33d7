"""Qdrant: a server, or a folder that its client searches itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from rabtriever.push.engine import check_width, engine_errors, shown
from rabtriever.push.points import Found, Point

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Qdrant"]

_SECONDS = 60
_PAGE = 4096


class Qdrant:
    """A collection in Qdrant, without a graph: graphs lose some of the best documents of such vectors.

    Args:
        url: ``http://localhost:6333``, or a folder. An API key is taken from ``QDRANT_API_KEY``.
        name: The collection.
    """

    longest_text: int | None = None
    most: int | None = None

    def __init__(self, url: str, name: str) -> None:
        self._name, self._label = name, f"Qdrant at {shown(url)}"
        self._remote = "://" in url
        with self._errors():
            if self._remote:
                key = os.environ.get("QDRANT_API_KEY")
                self._client = QdrantClient(url=url, api_key=key, timeout=_SECONDS, check_compatibility=False)
            else:
                self._client = QdrantClient(path=url)

    def exists(self) -> bool:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            return bool(self._client.collection_exists(self._name))

    def prepare(self, dimension: int) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        if self.exists():
            with self._errors():
                found = self._client.get_collection(self._name).config.params.vectors
            fits = isinstance(found, models.VectorParams) and found.distance is models.Distance.DOT
            check_width(self._label, self._name, found.size if fits else None, dimension)
            return
        with self._errors():
            self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(size=dimension, distance=models.Distance.DOT),
                hnsw_config=models.HnswConfigDiff(m=0),
            )

    def model(self) -> str | None:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            records, _ = self._client.scroll(self._name, limit=1, with_payload=["model"])
        return str((records[0].payload or {}).get("model")) if records else None

    def stamps(self, keys: Sequence[str]) -> dict[str, str]:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            records = self._client.retrieve(self._name, ids=list(keys), with_payload=["stamp"])
        return {str(record.id): str((record.payload or {}).get("stamp")) for record in records}

    def write(self, points: Sequence[Point]) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            self._client.upsert(
                self._name,
                points=[
                    models.PointStruct(id=point.key, vector=point.vector.tolist(), payload=_payload(point))
                    for point in points
                ],
                wait=True,
            )

    def all_keys(self) -> Iterator[list[str]]:
        """See :class:`rabtriever.push.engine.Engine`."""
        place: Any = None
        while True:
            with self._errors():
                records, place = self._client.scroll(self._name, limit=_PAGE, offset=place, with_payload=False)
            yield [str(record.id) for record in records]
            if place is None:
                return

    def delete(self, keys: Sequence[str]) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            self._client.delete(self._name, models.PointIdsList(points=list(keys)), wait=True)

    def count(self) -> int:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            return int(self._client.count(self._name, exact=True).count)

    def nearest(self, query: NDArray[np.float32], limit: int) -> list[Found]:
        """See :class:`rabtriever.push.engine.Engine`."""
        exact = models.SearchParams(exact=True) if self._remote else None  # a folder is searched exactly in any case
        with self._errors():
            answer = self._client.query_points(
                self._name, query=query.tolist(), limit=limit, with_vectors=True, search_params=exact
            )
        return [Found.of(point.payload or {}, point.vector) for point in answer.points]

    def close(self) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        self._client.close()

    def _errors(self) -> AbstractContextManager[None]:
        # RuntimeError: another process has the folder open.
        return engine_errors(self._label, ApiException, QdrantException, RuntimeError, ValueError, OSError)


def _payload(point: Point) -> dict[str, Any]:
    return {
        "id": point.id,
        "passage": point.passage,
        "span": point.span,
        "title": point.title,
        "text": point.text,
        "metadata": dict(point.metadata),
        "stamp": point.stamp,
        "model": point.model,
    }
