"""Which documents are labelled right for each query, in a form that many queries are taken from at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rabtriever.training.ragged import Ragged

if TYPE_CHECKING:
    from rabtriever.data import Dataset, Query

__all__ = ["MOST_DOCUMENTS", "Labels", "right_places"]

MOST_DOCUMENTS = 8192
"""Of a larger corpus so many documents, drawn anew by seed, stand against a query's labelled ones."""


def right_places(dataset: Dataset, split: str, queries: Sequence[Query]) -> list[list[int]]:
    """For each query the positions of its right documents in the corpus, ascending."""
    place = {document_id: i for i, document_id in enumerate(dataset.corpus)}
    return [sorted(place[i] for i in dataset.relevant(split, query.id)) for query in queries]


class Labels:
    """The labelled documents of queries.

    Args:
        right: For each query, the positions of its right documents in the corpus; none for a query without labels.
        documents: How many documents the corpus has.

    Example:
        >>> columns, right = Labels([[2], []], documents=3).draw(torch.tensor([1, 0]), 100, 0)
        >>> columns.tolist(), right.tolist()
        ([0, 1, 2], [[False, False, False], [False, False, True]])
    """

    def __init__(self, right: Sequence[Sequence[int]], documents: int) -> None:
        self._right, self._documents = Ragged(right), documents

    def draw(self, queries: Tensor, most: int, seed: int) -> tuple[Tensor, Tensor]:
        """The corpus, or so many of its documents with all that are right for the given queries, and which are right.

        Args:
            queries: Positions of the queries, ``(b,)``.
            most: Draw that many documents from a larger corpus.
            seed: Of the draw.

        Returns:
            Positions of documents ``(c,)``, and for each query which of them are right, ``(b, c)`` bool.
        """
        places, owner = self._right.take(queries)
        documents = self._right.values[places]
        columns = torch.arange(self._documents)
        if self._documents > most:
            drawn = torch.randperm(self._documents, generator=torch.Generator().manual_seed(seed))[:most]
            columns = torch.unique(torch.cat([drawn, documents]))
        right = torch.zeros(len(queries), self._documents, dtype=torch.bool)
        right[owner, documents] = True
        return columns, right[:, columns]
