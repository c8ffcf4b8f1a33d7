"""A flat scan over quantised vectors, which chooses the candidates whose scores are then computed exactly.

Scalar codes (8 bits or half floats per dimension) keep the ranking of a language model's states nearly whole, where
graphs and clusters do not. Single bits (RaBitQ) are several times quicker and keep it only after a rescaling that is
made for the queries at hand (:mod:`rabtriever.index.rescaling`), so they are tried only when asked for. Each way is
used only after :func:`measure` has found at least :data:`LEAST_RECALL` of the true ten best among its candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rabtriever.index.rescaling import build_bits, query_factors
from rabtriever.index.scan import best_of, top_k
from rabtriever.index.threads import in_parallel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.index.segment import Segment

__all__ = ["LEAST_RECALL", "Accelerator", "Codes", "build", "discard", "measure", "open_scan", "size", "version"]

Codes = Literal["sq8", "fp16", "rabitq"]
LEAST_RECALL = 0.99
_BLOCK = 1 << 14
_TRAIN = 1 << 17
"""Vectors that the range of the 8-bit codes is taken from."""
_FILES = "scan-*.faiss"
_MOST_HALVINGS = 4
_LEAST_PART = 1 << 17
"""Vectors of one file at least: it costs a fifth of a millisecond beside its scan, which then takes a whole one."""
_BITS_FETCH = 100
"""Candidates of single bits at least, which are less sure than those of more."""
_BITS_FACTORS = 8
"""Bytes beside a vector's single bits: two numbers that make a product of bits one of vectors."""
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
        scans: Flat faiss indexes that together hold all vectors of the segment, in their order. Each answers one query
            in one thread, so that several of them keep several processors busy.
    """

    def __init__(self, scans: Sequence[Any]) -> None:
        self._scans = list(scans)
        self._starts = np.cumsum([0, *(scan.ntotal for scan in scans)])
        self._factors = query_factors(scans[0])

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
        total = int(self._starts[-1])
        there = len(segment) if mask is None else int(mask.sum())
        if there * _FEW < len(segment) or 4 * k > there:
            return None
        taking_part, fetch = None, max(4 * k, k + 30)
        if self._factors is not None:
            if 2 * there < len(segment):  # a scan of single bits cannot pass documents over: most would be wasted
                return None
            queries = queries * self._factors
            fetch = max(_BITS_FETCH, 10 * k) * len(segment) // there
        elif mask is not None:
            taking_part = np.concatenate([mask, mask[segment.owner]])
        fetch = min(total, fetch)
        while True:
            chosen = [_documents(rows, segment, mask) for rows in self._search(queries, fetch, taking_part)]
            if fetch == total or min(map(len, chosen)) > k + 10:
                return chosen
            fetch = min(total, 4 * fetch)  # many passages of few documents: look further

    def _search(
        self, queries: NDArray[np.float32], fetch: int, taking_part: NDArray[np.bool_] | None
    ) -> list[NDArray[np.int64]]:
        """The rows of the ``fetch`` best vectors of each query, as far as the codes can tell, in no order."""
        faiss = _faiss()
        queries = np.ascontiguousarray(queries)

        def search(number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            if len(self._scans) > 1:  # in a thread of its own, whose setting is nobody else's
                faiss.omp_set_num_threads(1)
            scan, start = self._scans[number], int(self._starts[number])
            selected = None
            if taking_part is not None:
                bits = np.packbits(taking_part[start : start + scan.ntotal], bitorder="little")
                selected = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            scores, rows = scan.search(queries, min(fetch, scan.ntotal), params=selected)
            return np.where(rows < 0, -np.inf, scores), np.where(rows < 0, -1, rows + start)

        found = in_parallel(search, range(len(self._scans)))
        scores = np.concatenate([part for part, _ in found], axis=1)
        rows = np.concatenate([part for _, part in found], axis=1)
        if rows.shape[1] > fetch:
            best = np.argpartition(-scores, fetch - 1, axis=1)[:, :fetch]
            rows = np.take_along_axis(rows, best, axis=1)
        return list(rows)


def size(codes: Codes, count: int, dimension: int) -> int:
    """The bytes of the codes of ``count`` vectors, which a quick scan has in memory.

    Example:
        >>> size("sq8", 1_000_000, 576), size("rabitq", 1_000_000, 576)
        (576000000, 80000000)
    """
    per_vector = {"rabitq": dimension // 8 + _BITS_FACTORS, "sq8": dimension, "fp16": 2 * dimension}
    return count * per_vector[codes]


def build(vectors: NDArray[np.float32], codes: Codes, folder: Path, queries: NDArray[np.float32]) -> None:
    """Write the quantised copy of vectors ``(n, d)``, which may be mapped from a file; memory: one part of the copy.

    Args:
        vectors: The vectors.
        codes: How.
        folder: Where the files are made; what is there of other codes goes.
        queries: Queries ``(q, d)`` as those to come, which single bits are made for.
    """
    faiss = _faiss()
    discard(folder)
    sample = np.ascontiguousarray(vectors[:: max(1, len(vectors) // _TRAIN)])
    if codes == "rabitq":
        scan = build_bits(sample, queries)
    else:
        kind = faiss.ScalarQuantizer.QT_8bit if codes == "sq8" else faiss.ScalarQuantizer.QT_fp16
        scan = faiss.IndexScalarQuantizer(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        scan.train(sample)
    empty = faiss.serialize_index(scan)  # trained once, so that all parts' scores can be compared
    parts = 1 << min(_MOST_HALVINGS, max(1, len(vectors) // _LEAST_PART).bit_length() - 1)
    borders = np.linspace(0, len(vectors), parts + 1).astype(int)
    for number, (first, end) in enumerate(pairwise(borders.tolist())):
        part = faiss.deserialize_index(empty)
        for start in range(first, end, _BLOCK):
            part.add(np.ascontiguousarray(vectors[start : min(end, start + _BLOCK)]))
        faiss.write_index(part, str(folder / f"scan-{number:02}.faiss"))


def discard(folder: Path) -> None:
    """Delete what :func:`build` wrote."""
    for path in folder.glob(_FILES):
        path.unlink()


def open_scan(folder: Path, count: int, dimension: int) -> Accelerator:
    """Open what :func:`build` wrote, mapped from its files where this faiss can.

    Raises:
        ValueError: It is of other vectors.
    """
    faiss = _faiss()
    flags = getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
    scans = [faiss.read_index(str(path), flags) for path in sorted(folder.glob(_FILES))]
    if sum(scan.ntotal for scan in scans) != count or {scan.d for scan in scans} != {dimension}:
        raise ValueError(f"the codes in {folder} are not those of {count} vectors of {dimension} numbers")
    return Accelerator(scans)


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
