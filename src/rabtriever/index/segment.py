"""Documents' vectors, ids and metadata in memory or mapped from a file, which never change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rabtriever.errors import DataError
from rabtriever.index.columns import Columns
from rabtriever.index.rows import damaged, vector_crc
from rabtriever.index.scan import largest_norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.index.accelerator import Accelerator
    from rabtriever.index.texts import Texts

__all__ = ["Batch", "Names", "Segment", "read_batch"]

_FOUND = 1 << 13
"""Stamps looked up at once."""


class Names(Sequence[str]):
    """The strings of an Arrow column, made when they are asked for.

    Args:
        column: The column.

    Example:
        >>> Names(pa.array(["a", "b"]))[1]
        'b'
    """

    def __init__(self, column: pa.Array) -> None:
        self.column = column

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> Any:  # one row: no slices are taken
        return self.column[int(row)].as_py()


class Batch:
    """Some rows as they were read, verified.

    Attributes:
        numbers: Lance's row numbers, ``(n,)``, which hold for one version.
        stamps: The rows' identities, ``(n,)``.
        ids: Their ids.
        metadata: Their metadata as JSON.
        vectors: The first vector of each, ``(n, k)``.
        more: The vectors of further passages, ``(m, k)``.
        owner: The row that each of those belongs to, ``(m,)``.
    """

    def __init__(self, batch: pa.RecordBatch, dimension: int, folder: Path) -> None:
        self.numbers: NDArray[np.uint64] = batch.column("_rowid").to_numpy()
        self.stamps: NDArray[np.uint64] = batch.column("stamp").to_numpy()
        self.ids: pa.Array = batch.column("id")
        self.metadata: pa.Array = batch.column("metadata")
        stored = batch.column("vector").flatten().to_numpy().reshape(len(batch), dimension)
        passages = batch.column("passages")
        values, offsets = passages.values.to_numpy(zero_copy_only=False), passages.offsets.to_numpy()
        spans = batch.column("spans")
        span_values, span_offsets = spans.values.to_numpy(zero_copy_only=False), spans.offsets.to_numpy()
        sums = batch.column("vector_crc").to_pylist()
        for row, (name, vector) in enumerate(zip(self.ids.to_pylist(), stored, strict=True)):
            part = values[offsets[row] : offsets[row + 1]]
            if vector_crc(name, vector, part, span_values[span_offsets[row] : span_offsets[row + 1]]) != sums[row]:
                raise damaged(folder, name, "vector")
        counts = np.diff(offsets) // dimension
        more = values[offsets[0] : offsets[-1]].reshape(-1, dimension)
        self.vectors: NDArray[np.float32] = stored.astype(np.float32, copy=False)
        self.more: NDArray[np.float32] = more.astype(np.float32, copy=False)
        self.owner: NDArray[np.intp] = np.repeat(np.arange(len(batch)), counts)


def read_batch(batch: pa.RecordBatch, dimension: int, folder: Path) -> Batch:
    """Read rows with the columns :data:`rabtriever.index.rows.VECTOR_COLUMNS` and ``_rowid``.

    Raises:
        DataError: A row is not as it was written.
    """
    try:
        return Batch(batch, dimension, folder)
    except (ValueError, IndexError, UnicodeError) as error:
        raise DataError(
            f"{folder}: rows of the table are damaged on the disk ({error})",
            hint="`rabtriever check INDEX` names what is damaged",
            code="damaged",
        ) from error


class Segment:
    """Documents with their vectors.

    Args:
        stamps: Each document's identity, ``(n,)``.
        ids: Each document's id.
        metadata: Each document's metadata as JSON.
        vectors: The first vector of each document, then those of further passages, ``(n + m, k)``.
        owner: The document of each of those, ``(m,)``.
        accelerator: Finds candidates faster than a pass over all vectors.
        texts: The documents themselves, where it is mapped from the cache.
    """

    def __init__(
        self,
        stamps: NDArray[np.uint64],
        ids: pa.Array,
        metadata: pa.Array,
        vectors: NDArray[np.float32],
        owner: NDArray[np.intp],
        accelerator: Accelerator | None = None,
        texts: Texts | None = None,
    ) -> None:
        self.stamps, self.vectors, self.owner = stamps, vectors, owner
        self.ids, self.metadata = Names(ids), metadata
        self.accelerator, self.texts = accelerator, texts

    def __len__(self) -> int:
        return len(self.stamps)

    @classmethod
    def of(cls, batches: Sequence[Batch], dimension: int) -> Segment:
        """Put batches together."""
        starts = np.cumsum([0, *(len(batch.stamps) for batch in batches)])
        return cls(
            np.concatenate([np.empty(0, np.uint64), *(batch.stamps for batch in batches)]),
            pa.concat_arrays([pa.array([], pa.string()), *(batch.ids for batch in batches)]),
            pa.concat_arrays([pa.array([], pa.large_string()), *(batch.metadata for batch in batches)]),
            np.concatenate(
                [
                    np.empty((0, dimension), np.float32),
                    *(batch.vectors for batch in batches),
                    *(batch.more for batch in batches),
                ]
            ),
            np.concatenate(
                [
                    np.empty(0, np.intp),
                    *(batch.owner + start for batch, start in zip(batches, starts, strict=False)),
                ]
            ),
        )

    @classmethod
    def join(cls, parts: Sequence[tuple[Segment, NDArray[np.intp]]]) -> Segment:
        """A new segment of the given documents of each segment, in this order."""
        firsts, others, owners, done = [], [], [], 0
        for segment, rows in parts:
            place = np.full(len(segment), -1, np.intp)
            place[rows] = np.arange(done, done + len(rows))
            kept = place[segment.owner] >= 0
            firsts.append(segment.vectors[rows])
            others.append(segment.vectors[len(segment) :][kept])
            owners.append(place[segment.owner[kept]])
            done += len(rows)
        return cls(
            np.concatenate([segment.stamps[rows] for segment, rows in parts]),
            pa.concat_arrays([segment.ids.column.take(pa.array(rows)) for segment, rows in parts]),
            pa.concat_arrays([segment.metadata.take(pa.array(rows)) for segment, rows in parts]),
            np.concatenate([*firsts, *others]),
            np.concatenate(owners),
        )

    @cached_property
    def columns(self) -> Columns:
        """The metadata, laid out for filters."""
        return Columns(self._records())

    @cached_property
    def norm(self) -> float:
        """The largest norm of a vector."""
        return largest_norm(self.vectors)

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """The documents in the order of their stamps, to look stamps up."""
        return np.argsort(self.stamps)

    def find(self, stamps: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Where each stamp stands here, and whether it does: ``(n,)`` each."""
        rows, there = np.zeros(len(stamps), np.intp), np.zeros(len(stamps), np.bool_)
        after = 0
        for start in range(0, len(stamps) if len(self) else 0, _FOUND):
            part = stamps[start : start + _FOUND]
            here = slice(start, start + len(part))
            if np.array_equal(self.stamps[after : after + len(part)], part):  # most often nothing has come between
                rows[here], there[here] = np.arange(after, after + len(part)), True
                after += len(part)
                continue
            place = np.searchsorted(self.stamps, part, sorter=self.order)
            rows[here] = self.order[np.minimum(place, len(self) - 1)]
            there[here] = self.stamps[rows[here]] == part
            if there[here].any():
                after = int(rows[here][there[here]][-1]) + 1
        return rows, there

    def _records(self) -> Iterator[str]:
        for start in range(0, len(self), 1 << 14):
            yield from self.metadata.slice(start, 1 << 14).to_pylist()
