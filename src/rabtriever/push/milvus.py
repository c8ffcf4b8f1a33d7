"""Milvus: a server, or a file that Milvus Lite searches."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from rabtriever.errors import InputError
from rabtriever.push.engine import check_width, engine_errors, shown
from rabtriever.push.points import Found, Point

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Milvus"]

_TEXT = 65_535
_PAGE = 4096
_FOUND = ["id", "span", "title", "text", "metadata", "vector"]


class Milvus:
    """A collection in Milvus with a flat index: graphs lose some of the best documents of such vectors.

    Args:
        url: ``http://localhost:19530``, or a file whose name ends in ``.db``. A token is taken from ``MILVUS_TOKEN``.
        name: The collection.
    """

    longest_text: int | None = _TEXT
    most: int | None = 16_384

    def __init__(self, url: str, name: str) -> None:
        self._name, self._label = name, f"Milvus at {shown(url)}"
        if "://" not in url and not url.endswith(".db"):
            raise InputError(
                f"{url} is no place for Milvus", hint="give http://HOST:19530, or a file whose name ends in .db"
            )
        # It logs every error with a traceback, besides raising it.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        with self._errors():
            self._client = MilvusClient(uri=url, token=os.environ.get("MILVUS_TOKEN", ""))
            if self._client.has_collection(name):
                self._client.load_collection(name)

    def exists(self) -> bool:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            return bool(self._client.has_collection(self._name))

    def prepare(self, dimension: int) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            if self._client.has_collection(self._name):
                fields = {field["name"]: field for field in self._client.describe_collection(self._name)["fields"]}
                ours = {"key", "stamp", "model", *_FOUND} <= fields.keys()
                found = int(fields["vector"]["params"]["dim"]) if ours else None
                check_width(self._label, self._name, found, dimension)
                return
            index = self._client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="IP")
            self._client.create_collection(
                self._name, schema=_schema(dimension), index_params=index, consistency_level="Strong"
            )

    def model(self) -> str | None:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            rows = list(self._client.query(self._name, filter="", limit=1, output_fields=["model"]))
        return str(rows[0]["model"]) if rows else None

    def stamps(self, keys: Sequence[str]) -> dict[str, str]:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            rows = self._client.get(self._name, ids=list(keys), output_fields=["key", "stamp"])
        return {row["key"]: row["stamp"] for row in rows}

    def write(self, points: Sequence[Point]) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            self._client.upsert(self._name, [_row(point) for point in points])

    def all_keys(self) -> Iterator[list[str]]:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            pages = self._client.query_iterator(self._name, batch_size=_PAGE, output_fields=["key"])
            try:
                while rows := pages.next():
                    yield [row["key"] for row in rows]
            finally:
                pages.close()

    def delete(self, keys: Sequence[str]) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            self._client.delete(self._name, ids=list(keys))

    def count(self) -> int:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            return int(self._client.query(self._name, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def nearest(self, query: NDArray[np.float32], limit: int) -> list[Found]:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            (answer,) = self._client.search(
                self._name, data=[query.tolist()], anns_field="vector", limit=limit, output_fields=_FOUND
            )
        return [Found.of(hit["entity"], hit["entity"]["vector"]) for hit in answer]

    def close(self) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        self._client.close()

    def _errors(self) -> AbstractContextManager[None]:
        return engine_errors(self._label, MilvusException, ValueError, OSError)


def _schema(dimension: int) -> Any:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=36)
    for name, longest in {"stamp": 16, "model": 16, "id": _TEXT, "title": _TEXT, "text": _TEXT}.items():
        schema.add_field(name, DataType.VARCHAR, max_length=longest)
    schema.add_field("passage", DataType.INT64)
    schema.add_field("span", DataType.JSON)
    schema.add_field("metadata", DataType.JSON)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
    return schema


def _row(point: Point) -> dict[str, Any]:
    return {
        "key": point.key,
        "stamp": point.stamp,
        "model": point.model,
        "id": point.id,
        "passage": point.passage,
        "span": list(point.span or ()),
        "title": point.title,
        "text": point.text,
        "metadata": dict(point.metadata),
        "vector": point.vector.tolist(),
    }
