"""The pairs that stage III learns from, and the dev queries that it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rabtriever.training.candidates import WrongDocuments, parse_policy, training_queries
from rabtriever.training.labels import Labels, right_places
from rabtriever.training.positions import Positions, QueryPositions
from rabtriever.training.ragged import Ragged

if TYPE_CHECKING:
    from rabtriever.data import Dataset, Query
    from rabtriever.training.config import DistillConfig
    from rabtriever.training.teacher_outputs import TeacherOutputs

__all__ = ["Batch", "DevSet", "PairSet"]

_DEV_RANDOM = 15
"""Random documents per dev query, beside the right ones, on which student and teacher are correlated."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs of a few queries.

    Attributes:
        queries: Positions of the batch's queries, ``(b,)``.
        owner: For each pair, which of the batch's queries it belongs to, ``(n,)``.
        documents: For each pair, its document's position in the corpus, ``(n,)``.
        rows: For each pair, its row in the store, ``(n,)``.
        positions: Every position of the pairs, where these are learnt from.
    """

    queries: Tensor
    owner: Tensor
    documents: Tensor
    rows: Tensor
    positions: Positions | None = None


class PairSet:
    """Each training query's candidates, judged by the teacher.

    Args:
        dataset: Where the texts come from.
        queries: The training queries.
        outputs: The teacher's outputs.
        policy: ``all``, ``random:K`` or ``on-policy:K``.
        seed: Seeds every draw.
        labelled: More training queries, which only their labels teach: they have no pairs.
        every_position: Have the teacher's states at every position of the query part, not only at the last.

    Attributes:
        e_q: Query states, ``(m, d)``.
        e_d: States of the whole corpus, ``(n, d)``.
        right: For each query, the positions of the documents labelled relevant; none for a query without labels.
        labels: The same, to be drawn from.
        positions: What there is at every position of the query part, where it was asked for.
    """

    def __init__(
        self,
        dataset: Dataset,
        queries: list[Query],
        outputs: TeacherOutputs,
        policy: str,
        seed: int,
        labelled: Sequence[Query] = (),
        every_position: bool = False,
    ) -> None:
        self.outputs = outputs
        self.kind, self.count = parse_policy(policy)
        self.query_texts = [query.text for query in (*queries, *labelled)]
        self.document_texts = [document.content for document in dataset.corpus.values()]
        self.e_q = outputs.queries(self.query_texts)
        self.e_d = outputs.documents(self.document_texts)
        others = WrongDocuments(dataset)
        rng = np.random.default_rng([seed, 2])
        self.chosen: list[list[int]] = []
        self.right: list[list[int]] = []
        for query in queries:
            right = sorted(dataset.relevant("train", query.id))
            wrong = others.draw("train", query, self.count, rng)
            self.right.append([others.place[i] for i in right])
            self.chosen.append([others.place[i] for i in right + wrong])
        self._judged = len(queries)
        self.right += right_places(dataset, "train", labelled)
        self.chosen += [[] for _ in labelled]
        self.labels = Labels(self.right, len(self.e_d))
        judged = self.query_texts[: self._judged]
        self.positions = QueryPositions(outputs, judged, len(labelled)) if every_position else None
        self._judge()

    def __len__(self) -> int:
        return sum(map(len, self.chosen))

    def restore(self, chosen: list[list[int]]) -> None:
        """Go back to the candidates of a stored run."""
        self.chosen = chosen
        self._judge()

    def refresh(self, folded: Tensor, documents: Tensor) -> int:
        """``on-policy``: add each query's top documents by the student's own ranking; how many pairs are new.

        Args:
            folded: Folded queries, ``(m, k)``.
            documents: Document vectors, ``(n, k)``.
        """
        assert self.count is not None
        before = len(self)
        top = min(self.count, len(documents))
        folded = folded[: self._judged]
        for start in range(0, len(folded), 1024):
            best = (folded[start : start + 1024] @ documents.T).topk(top, dim=1).indices
            for row, ids in enumerate(best.tolist(), start):
                known = set(self.chosen[row])
                self.chosen[row] = self.chosen[row] + [i for i in ids if i not in known]
        self._judge()
        return len(self) - before

    def batch(self, queries: Tensor) -> Batch:
        """All pairs of the given queries; none where only labels teach them."""
        places, owner = self._candidates.take(queries)
        positions = self.positions.of(queries, places, owner) if self.positions and len(places) else None
        return Batch(queries, owner, self._candidates.values[places], self._rows[places], positions)

    def target_deviation(self) -> Tensor:
        """The standard deviation per dimension of (a sample of) the states that are learnt from, ``(d,)``."""
        rows = self.positions.rows if self.positions else self._rows
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:20_000]]
        states = self.outputs.states(rows)
        return states.std(0).clamp_min(1e-3 * float(states.std()))

    def _judge(self) -> None:
        if self.positions:
            self.positions.judge([(row, self.document_texts[i]) for row, ids in enumerate(self.chosen) for i in ids])
        pairs = [(self.query_texts[row], self.document_texts[i]) for row, ids in enumerate(self.chosen) for i in ids]
        self._rows = self.outputs.judge(pairs)
        self._candidates = Ragged(self.chosen)


@dataclass(frozen=True, slots=True)
class DevSet:
    """Dev queries: the right documents of each, and a sample of pairs with the teacher's log-odds.

    Attributes:
        texts: The queries.
        e_q: ``(m, d)``.
        right: For each query, the positions of its right documents in the corpus.
        owner: For each sampled pair its query, ``(n,)``.
        documents: For each sampled pair its document, ``(n,)``.
        log_odds: The teacher's, ``(n,)``.
    """

    texts: list[str]
    e_q: Tensor
    right: list[list[int]]
    owner: Tensor
    documents: Tensor
    log_odds: Tensor

    @classmethod
    def of(cls, dataset: Dataset, outputs: TeacherOutputs, config: DistillConfig, seed: int) -> DevSet | None:
        """The dataset's dev queries, or None where it has no such split."""
        if "dev" not in dataset.qrels or not dataset.split("dev"):
            return None
        queries = training_queries(dataset, "dev", config.dev_queries, seed)
        others = WrongDocuments(dataset)
        texts = [document.content for document in dataset.corpus.values()]
        rng = np.random.default_rng([seed, 3])
        right = right_places(dataset, "dev", queries)
        sampled = [
            ids + [others.place[i] for i in others.draw("dev", q, _DEV_RANDOM, rng)]
            for q, ids in zip(queries, right, strict=True)
        ]
        pairs = [(q.text, texts[i]) for q, ids in zip(queries, sampled, strict=True) for i in ids]
        logits = outputs.logits(outputs.judge(pairs))
        owner = torch.tensor([row for row, ids in enumerate(sampled) for _ in ids])
        documents = torch.tensor([i for ids in sampled for i in ids])
        asked = [q.text for q in queries]
        return cls(asked, outputs.queries(asked), right, owner, documents, logits[:, 0] - logits[:, 1])

    def measure(self, folded: Tensor, documents: Tensor) -> tuple[float, float, float]:
        """MRR, recall at 1 of the student, and the correlation of its log-odds with the teacher's.

        Args:
            folded: Folded dev queries, ``(m, k)``.
            documents: Document vectors, ``(n, k)``.
        """
        scores = folded @ documents.T
        ranks = []
        for row, right in enumerate(self.right):
            best = scores[row, right].max()
            wrong = torch.ones(scores.shape[1], dtype=torch.bool)
            wrong[right] = False
            ranks.append(1 + int((scores[row][wrong] >= best).sum()))
        student = scores[self.owner, self.documents]
        both = torch.stack([student, self.log_odds])
        correlation = float(torch.corrcoef(both)[0, 1]) if float(student.std()) > 0 else 0.0
        return float(np.mean([1 / r for r in ranks])), float(np.mean([r == 1 for r in ranks])), correlation
