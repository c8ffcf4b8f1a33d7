"""Which documents of one version answer queries best: by the student, by words, by both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.fusion import Fusion, fuse_ranks, fuse_scores
from rabtriever.index.filter import Filter
from rabtriever.index.parts import Part
from rabtriever.index.scan import best_of, top_k
from rabtriever.index.snapshot import Snapshot

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Finder", "Place"]

Place = tuple[int, int, float]
"""A part of the snapshot, a document in its segment, and the student's score of the document."""

_LEAST_DEPTH = 100
"""So many documents of each kind, or four times those asked for, are fused."""


@dataclass(frozen=True, slots=True)
class Finder:
    """Queries over one version.

    Attributes:
        snapshot: The version.
        texts: The queries.
        vectors: The same, encoded, ``(q, k)``.
        bias: What an inner product lacks to be the log-odds.
        condition: Which documents take part; None lets all.
    """

    snapshot: Snapshot
    texts: Sequence[str]
    vectors: NDArray[np.float32]
    bias: float
    condition: Filter | None

    def by_student(self, k: int) -> list[list[Place]]:
        """The ``k`` best for each query, by exact scores.

        Parts with an accelerator let it choose the candidates; all others are searched in full.
        """
        snapshot = self.snapshot
        merged: list[list[tuple[float, str, Place]]] = [[] for _ in self.texts]
        for number, (part, mask) in enumerate(zip(snapshot.parts, snapshot.masks(self.condition), strict=True)):
            ids = part.segment.ids
            for found, ranked in zip(merged, self._in_part(part, k, mask), strict=True):
                found += [(-score, ids[row], (number, row, score)) for row, score in ranked]
        return [[place for _, _, place in sorted(found)[:k]] for found in merged]

    def by_words(self, k: int) -> list[list[Place]]:
        """The ``k`` best for each query by BM25 alone."""
        masks = self.snapshot.masks(self.condition)
        return [
            [(*place, score) for place, score in self._scored(query, words).items()]
            for query, words in zip(self.vectors, self.snapshot.lexical.find(self.texts, k, masks), strict=True)
        ]

    def by_both(self, k: int, fusion: Fusion) -> list[list[Place]]:
        """The ``k`` best for each query by the student and BM25 together, among the best of each."""
        depth = max(_LEAST_DEPTH, 4 * k)
        by_student = [{(part, row): score for part, row, score in found} for found in self.by_student(depth)]
        others = None if fusion == "ranks" else by_student
        masks = self.snapshot.masks(self.condition)
        by_words = self.snapshot.lexical.find(self.texts, depth, masks, others)
        places = []
        for query, student, words in zip(self.vectors, by_student, by_words, strict=True):
            scores = student | self._scored(query, [place for place in words if place not in student])
            if fusion == "ranks":
                order = fuse_ranks([list(student), list(words)], scores)
            else:
                order = fuse_scores(scores, words, fusion)
            places.append([(*place, scores[place]) for place in order[:k]])
        return places

    def _scored(self, query: NDArray[np.float32], places: Iterable[tuple[int, int]]) -> dict[tuple[int, int], float]:
        """The student's scores of some documents, in their order."""
        wanted = list(places)
        scores = {}
        for number, part in enumerate(self.snapshot.parts):
            rows = np.array([row for where, row in wanted if where == number], np.intp)
            segment = part.segment
            for row, score in best_of(segment.vectors, query, rows, len(rows), segment.ids, self.bias, segment.owner):
                scores[number, row] = score
        return {place: scores[place] for place in wanted}

    def _in_part(self, part: Part, k: int, mask: NDArray[np.bool_] | None) -> list[list[tuple[int, float]]]:
        segment, queries, bias = part.segment, self.vectors, self.bias
        rows = None if mask is None else np.flatnonzero(mask)
        if segment.accelerator is not None:
            chosen = segment.accelerator.candidates(queries, k, segment, mask)
            if chosen is not None:
                return [
                    best_of(segment.vectors, query, candidates, k, segment.ids, bias, segment.owner)
                    for query, candidates in zip(queries, chosen, strict=True)
                ]
        return top_k(
            segment.vectors, queries, k, segment.ids, norm=segment.norm, bias=bias, rows=rows, owner=segment.owner
        )
