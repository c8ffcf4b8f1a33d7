"""Two systems as one: what either of them finds."""

from __future__ import annotations

from collections.abc import Sequence

from rabtriever.data.records import Query
from rabtriever.evaluation.ranking import ranked
from rabtriever.evaluation.systems import Bm25System, Corpus, Preparable, Scores, System
from rabtriever.fusion import BM25_WEIGHT, Fusion, Hybrid, checked_hybrid, fuse_ranks, fuse_scores
from rabtriever.progress import Progress

__all__ = ["HybridSystem"]

_MOST_SCORES = 1 << 20
"""Of each system held at once: whole rankings are needed, since each system's best must have the other's scores."""


class HybridSystem:
    """Two systems fused, as the index's hybrid search fuses them.

    Args:
        first: Usually the student; its scores should be log-odds.
        second: BM25 when left out; a score of 0 says that nothing was found.
        depth: How many documents of each ranking are fused.
        hybrid: The weight of the second's score, True for the usual one, or ``"ranks"``.

    Raises:
        InputError: ``hybrid`` is none of these.

    Example:
        >>> HybridSystem(Bm25System(), Bm25System()).name
        'BM25 (bm25s, English stop words) and 0.5 of BM25 (bm25s, English stop words)'
    """

    def __init__(
        self, first: System, second: System | None = None, depth: int = 100, hybrid: Hybrid = BM25_WEIGHT
    ) -> None:
        self._parts = (first, second or Bm25System())
        self._depth = depth
        self._fusion: Fusion = checked_hybrid(hybrid)
        names = [part.name for part in self._parts]
        by_rank = self._fusion == "ranks"
        self.name = f"{' and '.join(names)}, ranks fused" if by_rank else f"{names[0]} and {self._fusion} of {names[1]}"

    def prepare(self, corpus: Corpus, progress: Progress | None = None) -> None:
        """Let both read the corpus."""
        for part in self._parts:
            if isinstance(part, Preparable):
                part.prepare(corpus, progress)

    def rank(self, queries: Sequence[Query], corpus: Corpus, k: int) -> Scores:
        """Score the best ``k`` documents for each query: minus their place in the fused ranking."""
        together = max(1, _MOST_SCORES // max(1, len(corpus)))
        fused: Scores = {}
        for start in range(0, len(queries), together):
            some = queries[start : start + together]
            found = [part.rank(some, corpus, len(corpus)) for part in self._parts]
            for query in some:
                first, second = (scores.get(query.id, {}) for scores in found)
                order = self._fuse(first, second, query.id)
                fused[query.id] = {id_: -float(place) for place, id_ in enumerate(order[:k])}
        return fused

    def _fuse(self, first: dict[str, float], second: dict[str, float], key: str) -> list[str]:
        words = {id_: score for id_, score in second.items() if score > 0}  # 0: no word in common
        orders = [ranked(scores, key)[: self._depth] for scores in (first, words)]
        # What only the second has found has no score of the first: it comes last among equals.
        scores = {id_: first.get(id_, float("-inf")) for id_ in dict.fromkeys(orders[0] + orders[1])}
        if self._fusion == "ranks":
            return fuse_ranks(orders, scores)
        return fuse_scores(scores, words, self._fusion)
