"""Compaction and cleaning up, which never takes away what an open reader may need."""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rabtriever.index.description import Description
from rabtriever.index.locks import exclusive, held_versions
from rabtriever.index.seal import Seals
from rabtriever.index.storage import lance_errors
from rabtriever.index.store import Store

if TYPE_CHECKING:
    from lancedb.table import LanceTable

__all__ = ["Cleaned", "clean_up", "merge_files"]

_CENTURY = timedelta(days=36500)
_TAG = "held-"
_MARGINS = (0.02, 0.5, 10.0, 3600.0)
"""Seconds; after the last nothing is removed this time."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What :meth:`rabtriever.Index.compact` left.

    Attributes:
        versions: The versions that are kept.
        held: How many of them were kept because some process reads them or an earlier one.
        bytes_before: Bytes in the table's folder before, and ``bytes_after``, after.
    """

    versions: int
    held: int
    bytes_before: int
    bytes_after: int


def merge_files(store: Store) -> None:
    """Write many small files and half deleted ones as few whole ones, in a commit of its own."""
    with store.writing() as table, lance_errors("write to", store.folder):
        table.optimize(cleanup_older_than=_CENTURY)  # left out, it would remove what is older than a week


def clean_up(store: Store, before: int) -> Cleaned:
    """Remove the versions and files that neither the newest version nor any reader needs.

    Args:
        store: The store.
        before: Its size before the compaction.
    """
    with store.writing() as table, exclusive(store.folder, "readers"):
        held = held_versions(store.folder)
        kept = {version for name, version in held if name == store.name}
        with lance_errors("write to", store.folder):
            known = {int(found["version"]): found["timestamp"] for found in table.list_versions()}
            needed = [time for version, time in known.items() if kept and version >= min(kept)]
            for name in table.tags.list():
                if name.startswith(_TAG):  # of a process that ended before it could delete it
                    table.tags.delete(name)
            tags = [version for version in kept if version in known]
            for version in tags:
                table.tags.create(f"{_TAG}{version}", version)
            try:
                _remove_before(table, min(needed) if len(needed) > 1 else None)  # the newest stays in any case
            finally:
                for version in tags:
                    table.tags.delete(f"{_TAG}{version}")
            left = len(table.list_versions())
        _drop_tables(store.folder, {name for name, _ in held})
    return Cleaned(left, len(needed), before, store.size())


def _remove_before(table: LanceTable, oldest: datetime | None) -> None:
    """Remove the versions written before a time; all but the newest where it is None.

    Lance goes by its own clock, some time after this one is read; and clocks may run backwards. Then it would remove a
    version that has a tag, which makes it fail instead, and a longer margin is tried.
    """
    for margin in _MARGINS:
        age = timedelta(0) if oldest is None else datetime.now() - oldest + timedelta(seconds=margin)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that readers would fail: they are taken care of
                # No writer has files that are not committed yet: all of them hold the lock that is held here.
                table.optimize(cleanup_older_than=max(timedelta(0), age), delete_unverified=True)
            return
        except RuntimeError as error:
            if "tagged version" not in str(error):
                raise


def _drop_tables(folder: Path, held: set[str]) -> None:
    """Remove the tables of former models, once nobody reads them."""
    description = Description.read(folder)
    for path in folder.glob("*.lance"):
        name = path.name.removesuffix(".lance")
        if name not in held | {description.table, description.pending}:
            with suppress(OSError):
                shutil.rmtree(path)
            Seals(folder, name).drop()
