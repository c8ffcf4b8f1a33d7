"""Bring a damaged index back to where every document is as it was written, and keep what has to be taken out.

Nothing is lost silently: texts that are damaged are written to ``damaged/`` as far as they can be read, and the ids of
all documents concerned are reported, to be indexed again from where they came from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rabtriever.errors import DataError
from rabtriever.files import write_text
from rabtriever.index.cache import drop
from rabtriever.index.check import Problem, wrong_rows
from rabtriever.index.description import Description
from rabtriever.index.locks import exclusive
from rabtriever.index.rows import DOCUMENT_COLUMNS
from rabtriever.index.seal import Seals, version_of
from rabtriever.index.storage import lance_errors
from rabtriever.index.store import Store
from rabtriever.index.writing import Encoding, encode_again

__all__ = ["Repaired", "repair", "restore_copies", "roll_back"]


@dataclass(frozen=True, slots=True)
class Repaired:
    """What :meth:`rabtriever.Index.repair` did.

    Attributes:
        encoded: Ids of documents whose vectors were damaged and whose texts were not: encoded again.
        removed: Ids of documents taken out, to be indexed again.
        kept_in: The file that holds what could still be read of those.
        rolled_back: How many of the newest versions could not be read, and were left for the one before them.
        restored: Damaged or missing files of which there was a copy.
    """

    encoded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept_in: Path | None = None
    rolled_back: int = 0
    restored: tuple[str, ...] = ()


def roll_back(folder: Path, description: Description) -> int:
    """Make the newest version that can be read from end to end the newest one.

    Returns:
        How many versions after it could not be read.

    Raises:
        DataError: None can be read.
    """
    versions = folder / f"{description.table}.lance" / "_versions"
    numbers = sorted((number for path in versions.glob("*.manifest") if (number := version_of(path))), reverse=True)
    with exclusive(folder):
        moved: dict[Path, Path] = {}
        for skipped, number in enumerate(numbers):
            if _reads(folder, description, number):
                return skipped
            moved |= _set_aside(folder, versions, number)  # or no other could be opened
            Seals(folder, description.table).drop()
        for place, aside in moved.items():
            aside.rename(place)
    raise DataError(
        f"{folder}: none of the {len(numbers)} versions kept can be read",
        hint="restore the folder from a copy, or index the documents again into a new folder",
    )


def restore_copies(folder: Path, description: Description) -> tuple[str, ...]:
    """Put copies in the place of damaged or missing files that say which rows there are; return which."""
    with exclusive(folder):
        return tuple(Seals(folder, description.table).mend())


def repair(store: Store, encoding: Encoding, rolled_back: int = 0, restored: tuple[str, ...] = ()) -> Repaired:
    """Encode again what has a damaged vector, take out what is damaged otherwise, and drop the cache.

    Args:
        store: The store.
        encoding: How documents become vectors.
        rolled_back: What :func:`roll_back` found.
        restored: What :func:`restore_copies` found.
    """
    drop(store.folder)
    version = store.snapshot().version
    problems = list(wrong_rows(store, version))
    if not problems:
        return Repaired(rolled_back=rolled_back, restored=restored)
    lost = [problem for problem in problems if problem.kind != "vector"]
    gone = {problem.stamp for problem in lost}
    vectors = [problem for problem in problems if problem.kind == "vector" and problem.stamp not in gone]
    kept_in = _keep(store, version, lost) if lost else None
    store.delete_rows([problem.stamp for problem in lost if problem.stamp is not None])
    ids = [str(problem.id) for problem in vectors]
    encode_again(store, encoding, ids)
    removed = tuple(dict.fromkeys(str(problem.id) for problem in lost if problem.kind != "duplicate"))
    return Repaired(tuple(ids), removed, kept_in, rolled_back, restored)


def _keep(store: Store, version: int, lost: Sequence[Problem]) -> Path:
    """Write what can be read of rows to a file."""
    stamps = ", ".join(str(problem.stamp) for problem in lost)
    with lance_errors("read", store.folder):
        table = store.at(version).search().where(f"stamp IN ({stamps})").select(DOCUMENT_COLUMNS).to_arrow()
    target = store.folder / "damaged" / f"version-{version}.jsonl"
    number = 1
    while target.exists():
        target = target.with_name(f"version-{version}-{(number := number + 1)}.jsonl")
    write_text(target, "".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    return target


def _reads(folder: Path, description: Description, version: int) -> bool:
    try:
        store = Store(folder, description.table, description.dimension)
        for _ in wrong_rows(store, version):
            pass
    except DataError:
        return False
    return True


def _set_aside(folder: Path, versions: Path, number: int) -> dict[Path, Path]:
    """Move a version's manifest away; return where it was and where it is."""
    aside = folder / "damaged"
    aside.mkdir(exist_ok=True)
    moved = {path: aside / path.name for path in versions.glob("*.manifest") if version_of(path) == number}
    for path, place in moved.items():
        path.rename(place)
    (versions / "latest_version_hint.json").unlink(missing_ok=True)
    return moved
