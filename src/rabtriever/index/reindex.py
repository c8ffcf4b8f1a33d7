"""Move an index to another model while it is being read and written: build beside, then swap with one file.

The new table grows beside the old one, in the same folder; nothing but ``index.json`` says which of the two is the
index. An interrupted move goes on where it stopped, since what is stored already is not encoded again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from rabtriever.artifacts import check_same
from rabtriever.errors import InputError
from rabtriever.index.description import Description
from rabtriever.index.locks import exclusive
from rabtriever.index.protocol import Encoder
from rabtriever.index.store import Store
from rabtriever.index.writing import Encoding, add
from rabtriever.progress import Progress

__all__ = ["reindex"]

_ROUNDS = 20
_BATCH = 256
_WINDOW = 16
_DELETED = 1000


def reindex(folder: Path, student: Encoder, progress: Progress | None = None) -> Description:
    """Encode all documents with another model and make the result the index.

    A model that reads documents as the former one does has the same vectors: then nothing is encoded, and the index
    only changes whom its queries are read by.

    Args:
        folder: The index folder.
        student: The model to move to.
        progress: Where to report.

    Returns:
        The new ``index.json``.

    Raises:
        InputError: The index is of this model already, or others write faster than this can follow.
        DataError: A stored document is damaged, or a vector is not finite.
    """
    old = Description.read(folder)
    new = Description.of(student, folder, old.passages)
    if new.model.fingerprint == old.model.fingerprint:
        raise InputError(f"{folder} holds the vectors of this model already", hint="nothing has to be done")
    if new.model.document_fingerprint == old.model.document_fingerprint:
        return _rename(folder, new)
    name = "documents_" + hashlib.sha256(student.fingerprint.encode("utf-8")).hexdigest()[:12]
    new = new.model_copy(update={"table": name})
    source, target = _tables(folder, old, new)
    encoding = Encoding(lambda: student, new.dimension, source.dtype, new.passages)
    for _ in range(_ROUNDS):
        version = _follow(source, target, encoding, progress)
        with exclusive(folder):  # nobody commits while the last step is taken
            if source.versions()[-1][0] == version:
                new.write(folder)
                return new
    raise InputError(
        f"other processes write to {folder} faster than its documents can be encoded",
        hint="run it again while fewer write; what is encoded is kept",
    )


def _rename(folder: Path, new: Description) -> Description:
    """Make the index one of another model whose vectors are those that it holds."""
    with exclusive(folder):
        now = Description.read(folder)
        check_same("documents' model", new.model.of_vectors, now.model.of_vectors, folder)
        now = now.model_copy(update={"model": new.model, "library_version": new.library_version})
        now.write(folder)
    return now


def _tables(folder: Path, old: Description, new: Description) -> tuple[Store, Store]:
    """The table in use and the one being built, which is noted so that a compaction leaves it alone."""
    source = Store(folder, old.table, old.dimension)
    with exclusive(folder):
        Description.read(folder).model_copy(update={"pending": new.table}).write(folder)
        if (folder / f"{new.table}.lance").exists():
            return source, Store(folder, new.table, new.dimension, pending=True)
        return source, Store.create(folder, new.table, new.dimension, source.dtype, pending=True)


def _follow(source: Store, target: Store, encoding: Encoding, progress: Progress | None) -> int:
    """Bring the new table to what the old one holds now; return the version of the old one."""
    snapshot = source.snapshot()
    add(target, encoding, snapshot.texts(), batch_size=_BATCH, window=_WINDOW, progress=progress)
    gone = sorted(target.ids() - source.ids())
    for start in range(0, len(gone), _DELETED):
        target.delete(gone[start : start + _DELETED])
    return snapshot.version
