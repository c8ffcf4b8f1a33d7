"""PostgreSQL with the extension pgvector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from rabtriever.errors import InputError
from rabtriever.push.engine import check_width, engine_errors, shown
from rabtriever.push.points import Found, Point

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PgVector"]

_PAGE = 4096
_COLUMNS = {
    "key": "uuid PRIMARY KEY",
    "stamp": "text NOT NULL",
    "model": "text NOT NULL",
    "id": "text NOT NULL",
    "passage": "integer NOT NULL",
    "span_start": "integer",
    "span_end": "integer",
    "title": "text NOT NULL",
    "text": "text NOT NULL",
    "metadata": "jsonb NOT NULL",
}
_FOUND = "id, span_start, span_end, title, text, metadata, vector"


class PgVector:
    """A table in PostgreSQL without an index on its vectors, so that a search looks at all of them.

    Args:
        url: ``postgresql://USER@HOST/DATABASE``; a password is better kept in ``PGPASSWORD`` or ``~/.pgpass``.
        name: The table.
    """

    longest_text: int | None = None
    most: int | None = None

    def __init__(self, url: str, name: str) -> None:
        self._label = f"PostgreSQL at {shown(url)}"
        if not url.startswith(("postgresql://", "postgres://")):
            raise InputError(f"{shown(url)} is no place for pgvector", hint="give postgresql://USER@HOST/DATABASE")
        self._name, self._table = name, sql.Identifier(name)
        with self._errors():
            self._connection = psycopg.connect(url, autocommit=True)
            if self._one("SELECT 1 FROM pg_extension WHERE extname = 'vector'") is None:
                self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(self._connection)

    def exists(self) -> bool:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            return self._one("SELECT to_regclass(quote_ident(%s))", self._name) is not None

    def prepare(self, dimension: int) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        if self.exists():
            with self._errors():
                rows = self._connection.execute(
                    "SELECT attname, atttypmod FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(%s))",
                    (self._name,),
                )
                found: dict[str, int] = dict(rows.fetchall())
            ours = {*_COLUMNS, "vector"} <= found.keys()
            check_width(self._label, self._name, found["vector"] if ours else None, dimension)
            return
        columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
        with self._errors():
            self._connection.execute(
                sql.SQL(f"CREATE TABLE {{}} ({columns}, vector vector({dimension:d}) NOT NULL)").format(self._table)
            )

    def model(self) -> str | None:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            found = self._one(sql.SQL("SELECT model FROM {} LIMIT 1").format(self._table))
        return None if found is None else str(found)

    def stamps(self, keys: Sequence[str]) -> dict[str, str]:
        """See :class:`rabtriever.push.engine.Engine`."""
        query = sql.SQL("SELECT key, stamp FROM {} WHERE key = ANY(%s::uuid[])").format(self._table)
        with self._errors():
            return {str(key): stamp for key, stamp in self._connection.execute(query, (list(keys),))}

    def write(self, points: Sequence[Point]) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        names = [*_COLUMNS, "vector"]
        changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in names[1:])
        query = sql.SQL(
            f"INSERT INTO {{}} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))})"
            f" ON CONFLICT (key) DO UPDATE SET {changes}"
        ).format(self._table)
        rows = [
            (
                point.key,
                point.stamp,
                point.model,
                point.id,
                point.passage,
                *(point.span or (None, None)),
                point.title,
                point.text,
                Jsonb(dict(point.metadata)),
                Vector(point.vector),
            )
            for point in points
        ]
        with self._errors(), self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(query, rows)

    def all_keys(self) -> Iterator[list[str]]:
        """See :class:`rabtriever.push.engine.Engine`."""
        query = sql.SQL("SELECT key FROM {}").format(self._table)
        with self._errors(), self._connection.transaction(), self._connection.cursor(name="keys") as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(_PAGE):
                yield [str(key) for (key,) in rows]

    def delete(self, keys: Sequence[str]) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        query = sql.SQL("DELETE FROM {} WHERE key = ANY(%s::uuid[])").format(self._table)
        with self._errors():
            self._connection.execute(query, (list(keys),))

    def count(self) -> int:
        """See :class:`rabtriever.push.engine.Engine`."""
        with self._errors():
            return int(str(self._one(sql.SQL("SELECT count(*) FROM {}").format(self._table))))

    def nearest(self, query: NDArray[np.float32], limit: int) -> list[Found]:
        """See :class:`rabtriever.push.engine.Engine`."""
        # <#> is the negative inner product.
        order = sql.SQL(f"SELECT {_FOUND} FROM {{}} ORDER BY vector <#> %s LIMIT %s").format(self._table)
        with self._errors():
            rows = self._connection.execute(order, (Vector(query), limit)).fetchall()
        return [
            Found(id, None if start is None else (start, end), title, text, metadata, vector.to_numpy())
            for id, start, end, title, text, metadata, vector in rows
        ]

    def close(self) -> None:
        """See :class:`rabtriever.push.engine.Engine`."""
        self._connection.close()

    def _one(self, query: sql.SQL | sql.Composed | str, *values: object) -> object:
        """The first column of the first row; None where there is none."""
        row = self._connection.execute(query, values).fetchone()
        return None if row is None else row[0]

    def _errors(self) -> AbstractContextManager[None]:
        return engine_errors(self._label, psycopg.Error)
