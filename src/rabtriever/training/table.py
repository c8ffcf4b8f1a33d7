"""An append-only table on disk: unique keys, and memory-mapped rows of a fixed width beside them.

A table is one key file and one raw file per column, so row `i` of each belongs to key `i`. Rows are written first and
their keys last, each forced to disk: what has no whole key was never written, and the next writer cuts it off. So a
crash at any moment, or a full disk, loses at most the rows in flight. Writers take turns under a lock; readers need
none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from rabtriever.errors import InputError

__all__ = ["Table"]

_LOCK_SECONDS = 300.0  # an append takes well under a second


def _append(path: Path, size: int, data: bytes | memoryview) -> None:
    """Cut `path` to `size` bytes, add `data` and force it to disk."""
    with path.open("r+b" if path.exists() else "x+b") as file:
        if file.seek(0, os.SEEK_END) > size:
            file.truncate(size)
            file.seek(size)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class Table:
    """Rows of fixed width under unique keys: an append-only key file and one raw file per column.

    Args:
        folder: Where the files `NAME.keys` and `NAME.COLUMN` lie.
        name: The table's name.
        key_bytes: Length of every key.
        columns: Column name -> (little-endian dtype, width).

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> table = Table(folder, "queries", 2, {"states": ("<f4", 3)})
        >>> with table.lock():
        ...     table.append([b"q1"], {"states": np.ones((1, 3))})
        >>> table.rows([b"q1"]), table.column("states").shape
        (array([0]), (1, 3))
    """

    def __init__(self, folder: Path, name: str, key_bytes: int, columns: Mapping[str, tuple[str, int]]) -> None:
        self.folder, self.name, self._key_bytes = folder, name, key_bytes
        self._columns = {column: (np.dtype(dtype), width) for column, (dtype, width) in columns.items()}
        self._index: dict[bytes, int] = {}
        self._count = 0  # rows on disk; the index holds each key's first
        self._maps: dict[str, NDArray[Any]] = {}
        self.refresh()

    def __len__(self) -> int:
        return self._count

    def _path(self, part: str) -> Path:
        return self.folder / f"{self.name}.{part}"

    def _row_bytes(self, column: str) -> int:
        dtype, width = self._columns[column]
        return dtype.itemsize * width

    def refresh(self) -> None:
        """Take in the rows that other processes appended.

        Only rows that are whole in every file count; if a file was found cut short, the rows after the cut are dropped,
        and computed again when they are needed. (Cutting a file while processes use it is beyond what they can notice.)
        """
        count = _size(self._path("keys")) // self._key_bytes
        for column in self._columns:
            count = min(count, _size(self._path(column)) // self._row_bytes(column))
        if count < self._count:
            self._index, self._count, self._maps = {}, 0, {}
        if count == self._count:
            return
        with self._path("keys").open("rb") as file:
            file.seek(self._count * self._key_bytes)
            data = file.read((count - self._count) * self._key_bytes)
        for row in range(self._count, count):
            start = (row - self._count) * self._key_bytes
            self._index.setdefault(data[start : start + self._key_bytes], row)
        self._count, self._maps = count, {}

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions in `keys` of those that are not stored, the first of each; other processes' rows are seen."""
        self.refresh()
        first: dict[bytes, int] = {}
        for position, key in enumerate(keys):
            if key not in self._index:
                first.setdefault(key, position)
        return list(first.values())

    def rows(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """The row of each key, (n,).

        Raises:
            KeyError: If a key is not stored.
        """
        try:
            return np.fromiter((self._index[key] for key in keys), dtype=np.int64, count=len(keys))
        except KeyError as error:
            raise KeyError(f"{self.name}: a key is not in the store; add what `missing` returns first") from error

    def column(self, name: str) -> NDArray[Any]:
        """A read-only memory map (N, width) of a column: index it with `rows` to read only those rows."""
        if name not in self._maps:
            dtype, width = self._columns[name]
            shape = (self._count, width)
            self._maps[name] = (
                np.memmap(self._path(name), dtype=dtype, mode="r", shape=shape)
                if self._count
                else np.empty(shape, dtype)
            )
        return self._maps[name]

    def lock(self) -> FileLock:
        """The store's lock between processes, to be held around `append`."""
        return FileLock(self.folder / "lock", timeout=_LOCK_SECONDS)

    def append(self, keys: Sequence[bytes], values: Mapping[str, Any]) -> None:
        """Add rows under `lock`; keys that are stored by now, and repeated ones, are left out.

        Raises:
            InputError: If a value does not fit its column, or the disk is full; the table stays as it was.
            ValueError: If a shape or a key's length is wrong.
        """
        if any(len(key) != self._key_bytes for key in keys):
            raise ValueError(f"{self.name}: every key has {self._key_bytes} bytes")
        arrays = {column: self._checked(column, values[column], len(keys)) for column in self._columns}
        new = self.missing(keys)
        if not new:
            return
        for column, array in arrays.items():
            rows = np.ascontiguousarray(array[new])
            _append(self._path(column), self._count * self._row_bytes(column), rows.data.cast("B"))
        _append(self._path("keys"), self._count * self._key_bytes, b"".join(keys[i] for i in new))
        self.refresh()

    def _checked(self, column: str, values: Any, count: int) -> NDArray[Any]:
        dtype, width = self._columns[column]
        given = np.asarray(values)
        if given.shape != (count, width):
            raise ValueError(f"{self.name}.{column}: shape {given.shape}, expected {(count, width)}")
        with np.errstate(over="ignore"):
            stored = given.astype(dtype)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if len(bad):
            value = given[bad[0]][~np.isfinite(stored[bad[0]])][0]
            raise InputError(
                f"the model's output {value} in row {bad[0]} of {self.name}.{column} is not a finite {dtype.name}",
                hint="load the model in float32, and check its weights",
            )
        return stored


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
