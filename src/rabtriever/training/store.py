"""What the frozen backbone computed, kept on disk: states of queries, documents and pairs, each computed once.

A store is a folder of three append-only tables (`table.py`), which many runs and processes may share: a crash or a
full disk loses at most the rows in flight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from rabtriever.errors import InputError, MismatchError
from rabtriever.files import read_json, write_json
from rabtriever.training.table import Table

__all__ = ["TeacherStore", "text_key"]

_FORMAT = "rabtriever-teacher-store"
_VERSION = 1
_KEY_BYTES = 16

Pair = tuple[bytes, bytes]


def text_key(text: str) -> bytes:
    """The 16 bytes under which a text is stored; lone surrogates are allowed.

    Example:
        >>> len(text_key("I spilled my coke"))
        16
    """
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


class TeacherStore:
    """The frozen backbone's outputs, shared between runs and processes.

    Three tables: `e_Q` per query and `e_D` per document in float32, and per (query, document) pair the teacher's
    hidden state `e_teacher` in float16 and its logits `[z_T, z_F]` in float32. Training reads pairs by row from the
    memory maps, so a store may be larger than memory.

    Example:
        >>> import tempfile
        >>> store = TeacherStore.open(Path(tempfile.mkdtemp()), key="c0ffee", hidden_size=4)
        >>> query, document = text_key("I spilled my coke"), text_key("find a sponge")
        >>> store.add_pairs([(query, document)], np.zeros((1, 4)), np.array([[2.0, -1.0]]))
        >>> rows = store.pair_rows([(query, document)])
        >>> store.pair_logits[rows].tolist()
        [[2.0, -1.0]]
    """

    def __init__(self, folder: Path, hidden_size: int) -> None:
        self.folder, self.hidden_size = folder, hidden_size
        state = {"states": ("<f4", hidden_size)}
        self._queries = Table(folder, "queries", _KEY_BYTES, state)
        self._documents = Table(folder, "documents", _KEY_BYTES, state)
        self._pairs = Table(folder, "pairs", 2 * _KEY_BYTES, {"states": ("<f2", hidden_size), "logits": ("<f4", 2)})

    @classmethod
    def open(cls, root: Path, key: str, hidden_size: int) -> TeacherStore:
        """Open the store `root/key`, or create it.

        Args:
            root: The folder of all stores.
            key: Hexadecimal hash of all that determines the numbers: model, prompt, truncation limits, dtype.
            hidden_size: `d`.

        Raises:
            InputError: If the folder cannot be written, or `key` is not hexadecimal.
            DataError: If the store's header is damaged.
            MismatchError: If the folder holds a store of another key, hidden size or format version.
        """
        if not key or set(key) - set("0123456789abcdef"):
            raise InputError(f"the store's key {key!r} is not hexadecimal")
        folder = Path(root) / key
        header = {"format": _FORMAT, "version": _VERSION, "key": key, "hidden_size": hidden_size}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "header.json").exists():
                write_json(folder / "header.json", header)
            _check_header(folder / "header.json", header)
            return cls(folder, hidden_size)
        except OSError as error:
            raise InputError(
                f"cannot use the teacher store {folder}: {error}", hint="choose another cache folder or free the disk"
            ) from error

    def refresh(self) -> None:
        """Take in what other processes appended since."""
        for table in (self._queries, self._documents, self._pairs):
            table.refresh()

    def missing_queries(self, keys: Sequence[bytes]) -> list[int]:
        """Positions in `keys` of the queries still to be computed, each once."""
        return self._queries.missing(keys)

    def add_queries(self, keys: Sequence[bytes], states: Any) -> None:
        """Store `e_Q` (n, d). Raises InputError if a value is not finite or the disk is full."""
        self._add(self._queries, keys, {"states": states})

    def query_states(self, keys: Sequence[bytes]) -> NDArray[np.float32]:
        """`e_Q` (n, d) of stored queries. Raises KeyError for one that is missing."""
        return np.asarray(self._queries.column("states")[self._queries.rows(keys)])

    def missing_documents(self, keys: Sequence[bytes]) -> list[int]:
        """Positions in `keys` of the documents still to be computed, each once."""
        return self._documents.missing(keys)

    def add_documents(self, keys: Sequence[bytes], states: Any) -> None:
        """Store `e_D` (n, d). Raises InputError if a value is not finite or the disk is full."""
        self._add(self._documents, keys, {"states": states})

    def document_states(self, keys: Sequence[bytes]) -> NDArray[np.float32]:
        """`e_D` (n, d) of stored documents. Raises KeyError for one that is missing."""
        return np.asarray(self._documents.column("states")[self._documents.rows(keys)])

    def missing_pairs(self, pairs: Sequence[Pair]) -> list[int]:
        """Positions in `pairs` (query key, document key) of those still to be judged, each once."""
        return self._pairs.missing([query + document for query, document in pairs])

    def add_pairs(self, pairs: Sequence[Pair], states: Any, logits: Any) -> None:
        """Store `e_teacher` (n, d) and `[z_T, z_F]` (n, 2).

        Raises InputError if a value is not finite, a state is beyond float16, or the disk is full.
        """
        keys = [query + document for query, document in pairs]
        self._add(self._pairs, keys, {"states": states, "logits": logits})

    def pair_rows(self, pairs: Sequence[Pair]) -> NDArray[np.int64]:
        """Rows (n,) of stored pairs in `pair_states` and `pair_logits`; they never change. KeyError if missing."""
        return self._pairs.rows([query + document for query, document in pairs])

    @property
    def pair_states(self) -> NDArray[np.float16]:
        """Memory map (N, d) of `e_teacher`."""
        return self._pairs.column("states")

    @property
    def pair_logits(self) -> NDArray[np.float32]:
        """Memory map (N, 2) of `[z_T, z_F]`."""
        return self._pairs.column("logits")

    def _add(self, table: Table, keys: Sequence[bytes], values: Mapping[str, Any]) -> None:
        try:
            with table.lock():
                table.append(keys, values)
        except Timeout as error:
            raise InputError(f"{self.folder} is locked by another process", hint="end it or wait for it") from error
        except OSError as error:
            raise InputError(
                f"cannot write to the teacher store {self.folder}: {error}",
                hint="free the disk and run again; what was stored before is kept",
            ) from error


def _check_header(path: Path, wanted: Mapping[str, Any]) -> None:
    hint = f"delete the folder {path.parent}; it is a cache and is computed again"
    header = read_json(path)
    for name, value in wanted.items():
        found = header.get(name) if isinstance(header, dict) else None
        if found != value:
            raise MismatchError(f"{path}: {name} is {found!r}, expected {value!r}", hint=hint)
