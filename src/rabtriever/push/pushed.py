"""Search in another engine, with the index's own scores and hits."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np

from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.errors import InputError
from rabtriever.index.protocol import Encoder, checked_vectors
from rabtriever.index.records import Hit, whole_number
from rabtriever.index.scan import best_of
from rabtriever.push.engine import NAME, Engine, Kind, connect, shown
from rabtriever.push.points import Found, model_name
from rabtriever.push.upload import check_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PushedIndex"]

_SPARE = 10
"""Points asked for beside those wanted: the engine's products are rounded, and may order neighbours otherwise."""


class PushedIndex:
    """An index that :func:`rabtriever.push.push` has written into another engine.

    The engine chooses the candidates by its own exact search; their scores are computed again from the vectors that it
    returns, as an index does. So hits and scores are those of ``Index.search``.

    Args:
        kind: The engine.
        url: Where it is.
        student: The model that the index was made with.
        name: The collection, or table.

    Raises:
        InputError: The engine cannot be reached, or has nothing of this name.
        MismatchError: It holds another model's vectors.

    Example:
        >>> student = Retriever.from_pretrained("model")                                 # doctest: +SKIP
        >>> with PushedIndex("qdrant", "http://localhost:6333", student) as index:       # doctest: +SKIP
        ...     index.search("I spilled my coke", k=1)[0].id
        'sponge'
    """

    def __init__(self, kind: Kind, url: str, student: Encoder, *, name: str = NAME) -> None:
        self._student, self._place = student, f"{kind} at {shown(url)}, {name}"
        self._engine: Engine = connect(kind, url, name)
        try:
            if not self._engine.exists():
                raise InputError(f"{self._place}: there is no such collection", hint="push the index first")
            names = [model_name(student.document_fingerprint), model_name(student.fingerprint)]
            check_model(self._engine, names, self._place)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection; safe to call twice."""
        with closing(self._engine):
            pass

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """Find the documents that answer a query best.

        Args:
            query: The query.
            k: How many hits to return.

        Returns:
            Hits, best first. Of a document of several passages, ``text`` is its best passage and ``span`` its place.

        Raises:
            InputError: The query is empty, ``k`` is below 1, or the engine cannot be reached.
        """
        if not isinstance(query, str) or not query.strip():
            raise InputError(f"a query must be a text that is not empty, found {show(query)}")
        wanted = whole_number("k", k)
        encoded = self._student.encode_query([query])
        vector = checked_vectors(encoded, [f"query {show(query)}"], self._student.dimension)[0]
        limit = wanted + _SPARE
        while True:
            found = self._engine.nearest(vector, self._allowed(limit))
            hits, least = _ranked(found, vector, self._student.bias)
            if len(found) < self._allowed(limit) or (len(hits) > wanted and hits[wanted - 1].score > least):
                return hits[:wanted]
            if self._allowed(limit) < limit:
                raise InputError(
                    f"{self._place}: the best {len(found):,} vectors, which is all that it returns, do not decide which"
                    f" {wanted:,} documents are the best",
                    hint="ask for fewer, or search the index itself",
                )
            limit *= 4  # many passages of few documents, or many equal scores: look further

    def _allowed(self, limit: int) -> int:
        return limit if self._engine.most is None else min(limit, self._engine.most)


def _ranked(found: list[Found], query: NDArray[np.float32], bias: float) -> tuple[list[Hit], float]:
    """The documents found, each by its best passage and best first, and the least score of all that was found."""
    if not found:
        return [], -np.inf
    found = sorted(found, key=lambda one: one.span or (0, 0))  # of equal passages the first one is taken
    vectors = np.stack([one.vector for one in found])
    ranked = best_of(vectors, query, np.arange(len(found)), len(found), [one.id for one in found], bias)
    hits: dict[str, Hit] = {}
    for row, score in ranked:
        one = found[row]
        if one.id not in hits:
            hit = Hit.of(Document(one.id, one.text, one.title, one.metadata), score)
            hits[one.id] = replace(hit, span=one.span)
    return list(hits.values()), ranked[-1][1]
