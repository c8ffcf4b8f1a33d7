"""Which pairs stage I trains on, step by step: drawn by seed, an epoch at a time, and kept for a resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.files import read_json, write_json
from rabtriever.training.candidates import WrongDocuments, mine, mixture, parse_policy
from rabtriever.training.processes import Processes

if TYPE_CHECKING:
    from rabtriever.data import Dataset, Query
    from rabtriever.training.candidates import ScorePairs
    from rabtriever.training.config import TeacherConfig

__all__ = ["Apart", "Pair", "Plan"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a document as texts, whether the document is right, and which of the step's queries it is."""

    query: str
    document: str
    right: bool
    group: int


@dataclass(frozen=True, slots=True)
class Apart:
    """The queries and the documents of a step, each once, and for each query which of the documents are right."""

    queries: list[str]
    documents: list[str]
    right: list[list[bool]]


class Plan:
    """The steps of stage I, each a list of pairs of ``queries_per_step`` queries.

    Args:
        dataset: Where the texts come from.
        queries: The training queries.
        config: The candidate policy and the step's size.
        seed: Seeds every draw.
        score_pairs: The current model, for ``mined:K``.
        folder: Where each epoch's draw is kept, since a mined one cannot be drawn again; None keeps nothing.
        processes: Those that train together, of whom the first draws.

    Attributes:
        mixture: What a policy with hard documents draws from; None where it draws at random or mines them.
    """

    def __init__(
        self,
        dataset: Dataset,
        queries: list[Query],
        config: TeacherConfig,
        seed: int,
        score_pairs: ScorePairs,
        folder: Path | None,
        processes: Processes | None = None,
    ) -> None:
        self.dataset = dataset
        self.queries = {query.id: query for query in queries}
        self.size, self.further = config.queries_per_step, config.apart_queries
        self._train = dataset.split("train") if self.further else []
        self.seed = seed
        self.kind, self.count = parse_policy(config.candidates)
        self.score_pairs = score_pairs
        self._folder, self._processes = folder, processes or Processes()
        self.mixture = mixture(config.candidates, dataset)
        self._epoch: tuple[int, list[tuple[str, list[str]]]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps that visit every training query once."""
        return -(-len(self.queries) // self.size)

    def step(self, number: int) -> list[Pair]:
        """The pairs of one step, counted from 0 over all epochs."""
        pairs = []
        for group, (query_id, wrong) in enumerate(self._drawn(number)):
            text = self.queries[query_id].text
            right = sorted(self.dataset.relevant("train", query_id))
            pairs += [Pair(text, self.dataset.corpus[i].content, True, group) for i in right]
            pairs += [Pair(text, self.dataset.corpus[i].content, False, group) for i in wrong]
        return pairs

    def apart(self, number: int) -> Apart:
        """The texts of one step's pairs and of ``apart_queries`` further queries, every query against every document.

        Of a further query one right document is read; those that others brought count as right too, where they are.
        """
        drawn = self._drawn(number)
        queries = [self.queries[query_id].text for query_id, _ in drawn]
        right = [self.dataset.relevant("train", query_id) for query_id, _ in drawn]
        ids = {i for (_, wrong), own in zip(drawn, right, strict=True) for i in (*own, *wrong)}
        rng = np.random.default_rng([self.seed, number, 1])
        for query in self._further({query_id for query_id, _ in drawn}, rng):
            queries.append(query.text)
            right.append(self.dataset.relevant("train", query.id))
            ids.add(str(rng.choice(sorted(right[-1]))))
        documents = sorted(ids)
        return Apart(
            queries,
            [self.dataset.corpus[i].content for i in documents],
            [[i in own for i in documents] for own in right],
        )

    def _further(self, taken: set[str], rng: np.random.Generator) -> list[Query]:
        others = [query for query in self._train if query.id not in taken]
        return [others[i] for i in rng.permutation(len(others))[: self.further]]

    def _drawn(self, number: int) -> list[tuple[str, list[str]]]:
        epoch, place = divmod(number, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            with self._processes.first_goes_ahead():
                self._epoch = (epoch, self._load_or_draw(epoch))
        return self._epoch[1][place * self.size : (place + 1) * self.size]

    def _load_or_draw(self, epoch: int) -> list[tuple[str, list[str]]]:
        path = self._folder / f"plan-{epoch}.json" if self._folder else None
        if path is not None and path.exists():
            return [(query_id, wrong) for query_id, wrong in read_json(path)["draw"]]
        drawn = self._draw(epoch)
        if path is not None:
            write_json(path, {"draw": drawn})
        return drawn

    def _draw(self, epoch: int) -> list[tuple[str, list[str]]]:
        rng = np.random.default_rng([self.seed, epoch])
        ids = list(self.queries)
        order = [self.queries[ids[i]] for i in rng.permutation(len(ids))]
        if self.kind == "mined":
            assert self.count is not None
            mined = mine(self.dataset, "train", order, self.count, rng, self.score_pairs)
            return [(query.id, mined[query.id]) for query in order]
        if self.mixture is not None:
            assert self.count is not None
            of, count = self.mixture, self.count
            if self.kind == "bm25":
                return [(query.id, of.hard("train", query, count)) for query in order]
            return [(query.id, of("train", query, count, rng)) for query in order]
        wrong = WrongDocuments(self.dataset)
        return [(query.id, wrong.draw("train", query, self.count, rng)) for query in order]
