"""Which documents a training query is paired with: all, random ones, or ones that are hard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.bm25 import Bm25
from rabtriever.data import Dataset, Query
from rabtriever.errors import InputError

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

__all__ = [
    "Bm25Negatives",
    "HardNegatives",
    "JudgedNegatives",
    "Mixture",
    "WrongDocuments",
    "draw",
    "mine",
    "mixture",
    "parse_policy",
    "training_queries",
]

_POOL = 4
"""``mined:K`` keeps the K best-scored of this many times K random wrong documents; ``mixed:K`` and ``balanced:K`` draw
their hard ones from BM25's best, of which there are this many times as many; ``judged:K`` from all judged wrong."""

ScorePairs = Callable[[Sequence[tuple[str, str]]], "np.ndarray[tuple[int], np.dtype[np.float32]]"]


def parse_policy(policy: str) -> tuple[str, int | None]:
    """Split ``random:3`` into its kind and its number.

    Example:
        >>> parse_policy("random:3"), parse_policy("all")
        (('random', 3), ('all', None))
    """
    kind, _, count = policy.partition(":")
    return kind, int(count) if count else None


def training_queries(dataset: Dataset, split: str, limit: int | None, seed: int) -> list[Query]:
    """The split's judged queries, or ``limit`` of them drawn by seed, in file order.

    Raises:
        InputError: If the split holds no query with a right document.
    """
    queries = dataset.split(split)
    if not queries:
        raise InputError(f"dataset {dataset.name!r} has no judged query in split {split!r}")
    if limit is None or limit >= len(queries):
        return queries
    chosen = np.random.default_rng(seed).choice(len(queries), size=limit, replace=False)
    return [queries[i] for i in sorted(chosen)]


class WrongDocuments:
    """The documents not judged right for a query, without copies of a right one's text.

    Args:
        dataset: Whose corpus and judgements are read.

    Attributes:
        ids: All documents of the corpus, in its order.
        place: Where each one stands among them.

    Example:
        >>> from rabtriever.data import Document
        >>> documents = {key: Document(key, text) for key, text in (("a", "same"), ("b", "same"), ("c", "other"))}
        >>> dataset = Dataset("copies", documents, {"q": Query("q", "?")}, {"train": {"q": {"a": 1}}})
        >>> WrongDocuments(dataset).of("train", dataset.queries["q"])
        ['c']
    """

    def __init__(self, dataset: Dataset) -> None:
        self.ids = list(dataset.corpus)
        self.place = {document_id: row for row, document_id in enumerate(self.ids)}
        self._dataset = dataset
        right = {i for rows in dataset.qrels.values() for grades in rows.values() for i, g in grades.items() if g > 0}
        self._copies: dict[str, list[int]] = {dataset.corpus[i].content: [] for i in right}
        for row, document in enumerate(dataset.corpus.values()):
            if (same := self._copies.get(document.content)) is not None:
                same.append(row)

    def places(self, split: str, query: Query) -> NDArray[np.intp]:
        """Where a query's stand in the corpus, ascending."""
        right = self._dataset.relevant(split, query.id)
        copies = [row for i in right for row in self._copies[self._dataset.corpus[i].content]]
        return np.delete(np.arange(len(self.ids)), copies)

    def of(self, split: str, query: Query) -> list[str]:
        """The ids of a query's, in corpus order."""
        return [self.ids[row] for row in self.places(split, query)]

    def draw(self, split: str, query: Query, count: int | None, rng: Generator) -> list[str]:
        """``count`` of a query's at random, or all of them where there are no more (or ``count`` is None)."""
        return [self.ids[row] for row in draw(self.places(split, query), count, rng)]


def draw(
    places: NDArray[np.intp], count: int | None, rng: Generator, weights: NDArray[np.float64] | None = None
) -> NDArray[np.intp]:
    """``count`` of the places at random, or all of them where there are no more (or ``count`` is None).

    ``weights`` (positive) say how likely each one is beside the others; None is all alike.
    """
    if count is None or count >= len(places):
        return places
    p = None if weights is None else weights / weights.sum()
    return places[rng.choice(len(places), size=count, replace=False, p=p)]


def mine(
    dataset: Dataset, split: str, queries: Sequence[Query], count: int, rng: Generator, score_pairs: ScorePairs
) -> dict[str, list[str]]:
    """For each query the ``count`` wrong documents that a model scores highest among a random pool."""
    wrong = WrongDocuments(dataset)
    pools = {q.id: wrong.draw(split, q, _POOL * count, rng) for q in queries}
    pairs = [(q.text, dataset.corpus[i].content) for q in queries for i in pools[q.id]]
    scores = score_pairs(pairs)
    out: dict[str, list[str]] = {}
    start = 0
    for query in queries:
        pool = pools[query.id]
        best = np.argsort(-scores[start : start + len(pool)], kind="stable")[:count]
        out[query.id] = [pool[i] for i in best]
        start += len(pool)
    return out


class Mixture:
    """Wrong documents of which half (rounded down) are drawn from hard ones, the others from all.

    Hard ones alone would never show what has nothing to do with the query, random ones alone seldom what is nearly
    right.

    Args:
        dataset: Whose corpus is drawn from.
        hard: Where the hard ones come from.
        balanced: The others come by the share that is right of each in training (plus one), not all alike. A document
            that is right for every sixth query, and as a wrong one seldom seen, would be called right too often.

    Raises:
        DataError: If they are to be balanced and there is no split ``train``.
    """

    def __init__(self, dataset: Dataset, hard: HardNegatives, balanced: bool = False) -> None:
        self.hard = hard
        self._weights: NDArray[np.float64] | None = None
        if balanced:
            judged = dataset.judgements("train")
            times = Counter(i for query_id in judged for i in dataset.relevant("train", query_id))
            self._weights = np.array([1.0 + times[i] for i in hard.wrong.ids])

    def __call__(self, split: str, query: Query, count: int, rng: Generator) -> list[str]:
        """``count`` of a query's wrong documents, the hard ones first."""
        wrong = self.hard.wrong
        hard = np.array([wrong.place[i] for i in self.hard(split, query, _POOL * (count // 2))], np.intp)
        near = draw(hard, count // 2, rng)
        places = wrong.places(split, query)
        others = places[~np.isin(places, near)]
        weights = None if self._weights is None else self._weights[others]
        drawn = [near, draw(others, count - len(near), rng, weights)]
        return [wrong.ids[row] for row in np.concatenate(drawn)]


class JudgedNegatives:
    """The documents that the judgements themselves call wrong, by a grade of 0.

    Args:
        dataset: Whose judgements are read.

    Raises:
        InputError: If no query of ``train`` has one.
    """

    def __init__(self, dataset: Dataset) -> None:
        if not any(grade <= 0 for row in dataset.judgements("train").values() for grade in row.values()):
            raise InputError(
                f"dataset {dataset.name!r} has no training query with a document judged wrong",
                hint="add lines with score 0 to qrels/train.tsv, or set teacher.candidates=balanced:5",
            )
        self.wrong = WrongDocuments(dataset)
        self._dataset = dataset

    def __call__(self, split: str, query: Query, count: int) -> list[str]:
        """All of a query's, in corpus order, whatever the ``count``: none is harder than another."""
        grades = self._dataset.judgements(split).get(query.id, {})
        judged = np.array([self.wrong.place[i] for i in grades], np.intp)
        return [self.wrong.ids[row] for row in np.intersect1d(judged, self.wrong.places(split, query))]


class Bm25Negatives:
    """The wrong documents that share most words with a query.

    Args:
        dataset: Whose corpus is indexed, once.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.wrong = WrongDocuments(dataset)
        self._bm25 = Bm25([document.content for document in dataset.corpus.values()])

    def __call__(self, split: str, query: Query, count: int) -> list[str]:
        """The ``count`` best-ranked wrong documents; of equal ones those that come first in the corpus."""
        places = self.wrong.places(split, query)
        (scores,) = self._bm25.scores([query.text])
        scores = scores[places]
        shared = np.flatnonzero(scores)  # few of many, and only these need sorting
        best = shared[np.argsort(-scores[shared], kind="stable")[:count]]
        rest = np.flatnonzero(scores == 0)[: count - len(best)]
        return [self.wrong.ids[row] for row in places[np.concatenate([best, rest])]]


HardNegatives = Bm25Negatives | JudgedNegatives
"""Wrong documents of a query that look right, the likeliest first."""


def mixture(policy: str, dataset: Dataset) -> Mixture | None:
    """What a policy with hard wrong documents draws from; None where it draws at random or mines.

    Raises:
        InputError: For ``judged:K``, if no query of ``train`` has a document judged wrong.
    """
    kind, _ = parse_policy(policy)
    if kind == "judged":
        return Mixture(dataset, JudgedNegatives(dataset), balanced=True)
    if kind in ("bm25", "mixed", "balanced"):
        return Mixture(dataset, Bm25Negatives(dataset), balanced=kind == "balanced")
    return None
