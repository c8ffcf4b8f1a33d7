"""Copies of the documents beside the cached vectors, so that a hit needs no question to the table.

Each document is one line of JSON, verified when the document is handed out; where the lines end, and their checksums,
are verified when the cache is opened. A document whose line is damaged is read from the table instead.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.index.rows import DOCUMENT_COLUMNS, Found, found_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["ENDS", "LINES", "Texts", "texts_writer"]

LINES, ENDS = "texts.jsonl", "texts.i64"


class Texts:
    """The documents of a segment, each read when it is asked for.

    Args:
        lines: All lines, one after the other, ``(bytes,)``.
        ends: Where each ends, and its checksum, ``(n, 2)``.
    """

    def __init__(self, lines: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._lines, self._ends = lines, ends

    def __len__(self) -> int:
        return len(self._ends)

    def get(self, row: int) -> Found | None:
        """A document, or None where its copy is not as it was written."""
        end, crc = self._ends[row].tolist()
        line = self._lines[int(self._ends[row - 1, 0]) if row else 0 : end].tobytes()
        if zlib.crc32(line) != crc:
            return None
        return found_of(dict(zip(DOCUMENT_COLUMNS, json.loads(line), strict=True)))


@contextmanager
def texts_writer(folder: Path) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Make :data:`LINES` and :data:`ENDS` in a folder.

    Yields:
        What adds rows with the columns :data:`rabtriever.index.rows.DOCUMENT_COLUMNS`.
    """
    with (folder / LINES).open("wb") as lines, (folder / ENDS).open("wb") as ends:

        def write(batch: pa.RecordBatch) -> None:
            done = lines.tell()
            columns = (batch.column(name).to_pylist() for name in DOCUMENT_COLUMNS)
            encoded = [f"{json.dumps(values, ensure_ascii=False)}\n".encode() for values in zip(*columns, strict=True)]
            places = done + np.cumsum([len(line) for line in encoded], dtype=np.int64)
            sums = np.array([zlib.crc32(line) for line in encoded], np.int64)
            ends.write(np.stack([places, sums], axis=1).tobytes())
            lines.write(b"".join(encoded))

        yield write
