"""Copies of the documents beside the cached vectors, so that a hit needs no question to the table.

Each document is one line of JSON with its checksum, which is verified when the document is handed out; where the lines
begin is verified when the cache is opened. A line that is damaged is read from the table instead.
"""

from __future__ import annotations

import json
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
        ends: Where each ends, ``(n,)``.
    """

    def __init__(self, lines: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._lines, self._ends = lines, ends

    def __len__(self) -> int:
        return len(self._ends)

    def get(self, row: int) -> Found | None:
        """A document, or None where its copy is not as it was written."""
        start = int(self._ends[row - 1]) if row else 0
        try:
            values = json.loads(self._lines[start : int(self._ends[row])].tobytes())
            return found_of(dict(zip(DOCUMENT_COLUMNS, values, strict=True)))
        except (ValueError, TypeError, AttributeError, RecursionError):  # whatever the damage made of it
            return None


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
            ends.write((done + np.cumsum([len(line) for line in encoded], dtype=np.int64)).tobytes())
            lines.write(b"".join(encoded))

        yield write
