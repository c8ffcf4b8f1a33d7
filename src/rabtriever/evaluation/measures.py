"""The field's measures, computed by ir-measures, query by query.

``R@k`` is recall: the share of a query's relevant documents among the first k. Where each query has one relevant
document, as in the paper, it is the paper's R@k (hit rate). Where a query has several, R@1 cannot reach 1, so
``hit@1`` (ir-measures' Success@1: whether the first document is relevant) is reported beside it. ``MRR@10`` and
``nDCG@10`` are the usual ones; nDCG uses the grades, the others ask whether the grade is above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ir_measures
from ir_measures import RR, R, Success, nDCG

__all__ = ["MEASURES", "measure"]

_IR_MEASURES = {
    "R@1": R @ 1,
    "R@3": R @ 3,
    "R@5": R @ 5,
    "MRR@10": RR @ 10,
    "nDCG@10": nDCG @ 10,
    "hit@1": Success @ 1,
}

MEASURES = tuple(_IR_MEASURES)
"""The names of the measures, in the order in which reports show them."""


def measure(
    qrels: Mapping[str, Mapping[str, int]], rankings: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Compute every measure for every judged query.

    Args:
        qrels: Query id -> document id -> grade.
        rankings: Query id -> document ids, best first. A query without a ranking counts as 0.

    Returns:
        Measure -> query id -> value.

    Example:
        >>> values = measure({"q1": {"d1": 1, "d2": 1}}, {"q1": ["d1", "d3", "d2"]})
        >>> values["R@1"], values["R@3"], values["MRR@10"], values["hit@1"]
        ({'q1': 0.5}, {'q1': 1.0}, {'q1': 1.0}, {'q1': 1.0})
    """
    # Strictly falling scores leave the tools no ties to break (they break them in different ways).
    run = {query: {document: -float(rank) for rank, document in enumerate(rankings.get(query, ()))} for query in qrels}
    judged = {query: dict(grades) for query, grades in qrels.items()}
    names = {str(ir_measure): name for name, ir_measure in _IR_MEASURES.items()}
    values: dict[str, dict[str, float]] = {name: dict.fromkeys(qrels, 0.0) for name in MEASURES}
    for metric in ir_measures.iter_calc(list(_IR_MEASURES.values()), judged, run):
        values[names[str(metric.measure)]][metric.query_id] = float(metric.value)
    return values
