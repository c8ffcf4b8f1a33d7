"""One bit per dimension that keeps the ranking of a language model's states: RaBitQ after a rescaling for the queries.

A few dimensions of such states are huge, and queries weigh them little; codes of one bit would spend themselves on
those. An inner product does not change when documents are multiplied by ``s`` per dimension and queries divided by it,
so ``s`` is chosen to give every dimension the weight that it has in products: ``s = sqrt(rms(q) / sd(x))``, from real
queries. A random rotation then spreads what is left evenly (Gao and Long 2024, arXiv 2405.12497; centring is RaBitQ's
own).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["build_bits", "query_factors"]

_SEED = 20_240_501
_TINY = 1e-6
"""Of the largest weight: dimensions that never vary, or that no query uses, count for no less."""


def build_bits(sample: NDArray[np.float32], queries: NDArray[np.float32]) -> Any:
    """An empty faiss index of single bits that rescales and rotates what is added to it.

    Args:
        sample: Vectors as those to be added, ``(n, d)``.
        queries: Queries as those to come, ``(q, d)``.
    """
    faiss = import_module("faiss")
    width = sample.shape[1]
    spread = sample.std(axis=0, dtype=np.float64)
    weight = np.sqrt(np.mean(queries.astype(np.float64) ** 2, axis=0))
    scale = np.sqrt(_floored(weight) / _floored(spread)).astype(np.float32)
    rotation = faiss.RandomRotationMatrix(width, width)
    rotation.init(_SEED)
    matrix = faiss.vector_to_array(rotation.A).reshape(width, width) * scale
    transform = faiss.LinearTransform(width, width, False)
    faiss.copy_array_to_vector(np.ascontiguousarray(matrix, np.float32).ravel(), transform.A)
    transform.is_trained = True
    bits = faiss.IndexRaBitQFastScan(width, faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexPreTransform(transform, bits)
    transform.this.disown()  # the index owns both from here
    bits.this.disown()
    index.own_fields = True
    index.train(np.ascontiguousarray(sample))
    return index


def query_factors(index: Any) -> NDArray[np.float32] | None:
    """What queries are multiplied with before such an index is searched, ``(d,)``; None for another kind of index.

    The index multiplies queries by ``s`` as it does documents, where they are to be divided by it: so ``1 / s**2``.
    """
    faiss = import_module("faiss")
    if not isinstance(index, faiss.IndexPreTransform):
        return None
    transform = faiss.downcast_VectorTransform(index.chain.at(0))
    matrix = faiss.vector_to_array(transform.A).reshape(index.d, index.d)
    factors: NDArray[np.float32] = (1.0 / np.square(matrix).sum(axis=0)).astype(np.float32)  # a rotation's columns: 1
    return factors


def _floored(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(weights, _TINY * max(float(np.max(weights)), float(np.finfo(np.float32).tiny)))
