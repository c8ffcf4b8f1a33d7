"""A flat scan over quantised vectors, which chooses the candidates whose scores are then computed exactly.

Scalar codes (8 bits or half floats per dimension) keep the ranking of a language model's states nearly whole, where
graphs and clusters do not. Single bits (RaBitQ) are several times quicker and keep it only after a rescaling that is
made for the queries at hand (:mod:`rabtriever.index.rescaling`), so they are tried only when asked for. Each way is
used only after :func:`measure` has found at least :data:`LEAST_RECALL` of the true ten best among its candidates.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rabtriever.index.rescaling import build_bits, query_factors
from rabtriever.index.scan import best_of, top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.index.segment import Segment

__all__ = ["LEAST_RECALL", "Accelerator", "Codes", "build", "measure", "open_scan", "version"]

Codes = Literal["sq8", "fp16", "rabitq"]
LEAST_RECALL = 0.99
_BLOCK = 1 << 14
_TRAIN = 1 << 17
"""Vectors that the range of the 8-bit codes is taken from."""
_BITS_FETCH = 100
"""Candidates of single bits at least, which are less sure than those of more."""
_FEW = 16
"""A full pass over the chosen documents is quicker when fewer than one in this many takes part."""


def version() -> str | None:
    """The version of faiss, or None where it is not installed.

    Example:
        >>> version() is None or version()[0].isdigit()
        True
    """
    try:
        return str(_faiss().__version__)
    except ImportError:
        return None


class Accelerator:
    """Finds candidates in the vectors of one segment.

    Args:
        scan: A flat faiss index over all vectors of the segment, in their order.
    """

    def __init__(self, scan: Any) -> None:
        self._scan = scan
        self._factors = query_factors(scan)

    def candidates(
        self, queries: NDArray[np.float32], k: int, segment: Segment, mask: NDArray[np.bool_] | None
    ) -> list[NDArray[np.intp]] | None:
        """Documents that should hold the ``k`` best.

        Args:
            queries: ``(q, d)``.
            k: How many are wanted.
            segment: The segment.
            mask: Which of its documents take part; None where all do.

        Returns:
            For each query more than ``k`` documents where there are as many; None where a full pass is the better way.
        """
        faiss = _faiss()
        there = len(segment) if mask is None else int(mask.sum())
        if there * _FEW < len(segment) or 4 * k > there:
            return None
        selected, fetch = None, max(4 * k, k + 30)
        if self._factors is not None:
            if 2 * there < len(segment):  # a scan of single bits cannot pass documents over: most would be wasted
                return None
            queries = queries * self._factors
            fetch = max(_BITS_FETCH, 10 * k) * len(segment) // there
        elif mask is not None:
            bits = np.packbits(np.concatenate([mask, mask[segment.owner]]), bitorder="little")
            selected = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        fetch = min(self._scan.ntotal, fetch)
        while True:
            _, rows = self._scan.search(np.ascontiguousarray(queries), fetch, params=selected)
            chosen = [_documents(found, segment, mask) for found in rows]
            if fetch == self._scan.ntotal or min(map(len, chosen)) > k + 10:
                return chosen
            fetch = min(self._scan.ntotal, 4 * fetch)  # many passages of few documents: look further


def build(vectors: NDArray[np.float32], codes: Codes, path: Path, queries: NDArray[np.float32]) -> None:
    """Write the quantised copy of vectors ``(n, d)``, which may be mapped from a file; memory: the copy itself.

    Args:
        vectors: The vectors.
        codes: How.
        path: The file.
        queries: Queries ``(q, d)`` as those to come, which single bits are made for.
    """
    faiss = _faiss()
    sample = np.ascontiguousarray(vectors[:: max(1, len(vectors) // _TRAIN)])
    if codes == "rabitq":
        scan = build_bits(sample, queries)
    else:
        kind = faiss.ScalarQuantizer.QT_8bit if codes == "sq8" else faiss.ScalarQuantizer.QT_fp16
        scan = faiss.IndexScalarQuantizer(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        scan.train(sample)
    for start in range(0, len(vectors), _BLOCK):
        scan.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
    faiss.write_index(scan, str(path))


def open_scan(path: Path, count: int, dimension: int) -> Accelerator:
    """Open what :func:`build` wrote, mapped from its file where this faiss can.

    Raises:
        ValueError: It is of other vectors.
    """
    faiss = _faiss()
    scan = faiss.read_index(str(path), getattr(faiss, "IO_FLAG_MMAP_IFC", 0))
    if (scan.ntotal, scan.d) != (count, dimension):
        raise ValueError(f"{path} holds {scan.ntotal} vectors of {scan.d}, not {count} of {dimension}")
    return Accelerator(scan)


def measure(segment: Segment, accelerator: Accelerator, queries: NDArray[np.float32], k: int = 10) -> float:
    """The share of the exact ``k`` best of each query ``(q, d)`` that the quantised scan and rescoring find."""
    plain = top_k(segment.vectors, queries, k, segment.ids, norm=segment.norm, owner=segment.owner)
    chosen = accelerator.candidates(queries, k, segment, None)
    if chosen is None:
        return 1.0
    found = shared = 0
    for query, truth, rows in zip(queries, plain, chosen, strict=True):
        best = best_of(segment.vectors, query, rows, k, segment.ids, owner=segment.owner)
        found += len(truth)
        shared += len({row for row, _ in truth} & {row for row, _ in best})
    return shared / max(1, found)


def _faiss() -> Any:
    """The optional package, whose own types do not describe what its Python layer accepts."""
    return import_module("faiss")


def _documents(rows: NDArray[np.int64], segment: Segment, mask: NDArray[np.bool_] | None) -> NDArray[np.intp]:
    rows = rows[rows >= 0]
    further = rows >= len(segment)
    rows = rows.copy()
    rows[further] = segment.owner[rows[further] - len(segment)]
    documents = np.unique(rows).astype(np.intp)
    return documents if mask is None else documents[mask[documents]]
