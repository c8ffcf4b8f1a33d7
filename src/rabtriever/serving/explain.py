"""Why the student scored a hit as it did: its log-odds are a sum over dimensions, so each has its share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rabtriever.index import Hit
from rabtriever.index.protocol import Encoder

__all__ = ["Explanation", "Share", "explain"]

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Share:
    """What one dimension adds to the log-odds: the query's number times the document's."""

    dimension: int
    query: float
    document: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """The student's log-odds, taken apart: ``bias`` + the ``dimensions`` + ``rest``.

    Attributes:
        log_odds: The sum.
        bias: What the model adds to every score.
        dimensions: The largest contributions, whatever their sign.
        rest: All others together.
    """

    log_odds: float
    bias: float
    dimensions: Sequence[Share]
    rest: float


def explain(student: Encoder, query: str, hits: Sequence[Hit], shown: int = _SHOWN) -> list[Explanation]:
    """Take the student's score of each hit apart.

    The documents are read by the model again (of a long one, the passage that was found), so this costs about what
    adding them to the index cost.

    Args:
        student: The model.
        query: What was asked.
        hits: What was found.
        shown: How many dimensions to name.
    """
    if not hits:
        return []
    vector = student.encode_query([query])[0].astype(np.float64)
    explanations = []
    for document in student.encode_document([hit.passage for hit in hits]).astype(np.float64):
        parts = vector * document
        largest = np.argsort(-np.abs(parts), kind="stable")[:shown]
        shares = [Share(int(i), float(vector[i]), float(document[i]), float(parts[i])) for i in largest]
        total = float(parts.sum()) + student.bias
        rest = float(parts.sum() - parts[largest].sum())
        explanations.append(Explanation(total, float(student.bias), shares, rest))
    return explanations
