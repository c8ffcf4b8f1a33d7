"""Two systems as one: what either of them finds."""

from __future__ import annotations

from collections.abc import Sequence

from rabtriever.data.records import Query
from rabtriever.evaluation.ranking import ranked
from rabtriever.evaluation.systems import Bm25System, Corpus, Preparable, Scores, System
from rabtriever.fusion import fuse
from rabtriever.progress import Progress

__all__ = ["HybridSystem"]


class HybridSystem:
    """Two systems' rankings, fused by the reciprocals of their ranks, as the index's hybrid search fuses them.

    Args:
        first: Usually the student.
        second: BM25 when left out.
        depth: How many documents of each ranking are fused.

    Example:
        >>> HybridSystem(Bm25System(), Bm25System()).name
        'BM25 (bm25s, English stop words) and BM25 (bm25s, English stop words), fused'
    """

    def __init__(self, first: System, second: System | None = None, depth: int = 100) -> None:
        self._parts = (first, second or Bm25System())
        self._depth = depth
        self.name = f"{self._parts[0].name} and {self._parts[1].name}, fused"

    def prepare(self, corpus: Corpus, progress: Progress | None = None) -> None:
        """Let both read the corpus."""
        for part in self._parts:
            if isinstance(part, Preparable):
                part.prepare(corpus, progress)

    def rank(self, queries: Sequence[Query], corpus: Corpus, k: int) -> Scores:
        """Score the best ``k`` documents for each query: minus their place in the fused ranking."""
        found = [part.rank(queries, corpus, max(k, self._depth)) for part in self._parts]
        fused: Scores = {}
        for query in queries:
            first = found[0].get(query.id, {})
            orders = [ranked(scores.get(query.id, {}), query.id)[: self._depth] for scores in found]
            # What only the second has found has no score of the first: it comes last among equals.
            ties = dict.fromkeys(orders[1], float("-inf")) | first
            fused[query.id] = {id_: -float(place) for place, id_ in enumerate(fuse(orders, ties)[:k])}
        return fused
