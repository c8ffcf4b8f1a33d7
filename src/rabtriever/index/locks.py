"""One writer at a time, and what open readers hold.

Writers take turns by ``locks/writer.lock``, held for one commit at a time. Every open version has a lease: a file in
``locks/`` whose name says table and version and which its process holds locked. The operating system lets go of the
lock when the process ends, however it ends, so that a lease which can be locked belongs to nobody. Cleaning up removes
only versions older than every lease.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rabtriever.errors import InputError

__all__ = ["FOLDER", "Lease", "exclusive", "held_versions"]

FOLDER = "locks"
_WAIT = 60.0
"""Seconds to wait for another writer's commit; the longest are those of a compaction."""


@contextmanager
def exclusive(index: Path, name: str = "writer", wait: float | None = None) -> Iterator[None]:
    """Hold one of an index's locks; it goes with the process.

    Args:
        index: The index folder.
        name: ``writer`` for commits, ``readers`` for taking a lease and for cleaning up.
        wait: Seconds to wait for whoever holds it; a minute when left out.

    Raises:
        InputError: Another process still holds it (code ``locked``), or the folder may not be written.

    Example:
        >>> import tempfile
        >>> with exclusive(Path(tempfile.mkdtemp())):
        ...     pass
    """
    seconds = _WAIT if wait is None else wait
    try:
        lock = FileLock(_folder(index) / f"{name}.lock")
        lock.acquire(timeout=seconds, poll_interval=0.01)
    except Timeout:
        raise InputError(
            f"another process is writing to the index {index}, and has been for {seconds:g} seconds",
            hint="wait until it is done and run this again",
            code="locked",
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot lock the index {index} for writing: {error.strerror or error}",
            hint="mend the folder's permissions, or copy the index to where it can be written",
        ) from error
    try:
        yield
    finally:
        lock.release()


class Lease:
    """Keeps one version of a table from being cleaned up until :meth:`release` or the end of the process.

    In a folder that cannot be written there is no lease, and nothing that could clean up either.

    Args:
        index: The index folder.
        table: The table's name.
        version: The version that is read.

    Example:
        >>> import tempfile
        >>> lease = Lease(folder := Path(tempfile.mkdtemp()), "documents", 7)
        >>> held_versions(folder)
        {('documents', 7)}
        >>> lease.release(); held_versions(folder)
        set()
    """

    def __init__(self, index: Path, table: str, version: int) -> None:
        self._lock: FileLock | None = None
        with suppress(OSError, InputError):
            path = _folder(index) / f"reader-{table}-{version}-{secrets.token_hex(6)}.lock"
            lock = FileLock(path, thread_local=False)
            lock.acquire(timeout=0)
            self._lock = lock

    def release(self) -> None:
        """Let go of the version; safe to call twice."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)
                lock.release()


def held_versions(index: Path) -> set[tuple[str, int]]:
    """Tables and versions that somebody has open; leases of processes that ended are removed.

    Call it within ``exclusive(index, "readers")``, so that nobody takes a lease meanwhile.
    """
    held: set[tuple[str, int]] = set()
    for path in (index / FOLDER).glob("reader-*.lock"):
        _, table, version, _ = path.name.removesuffix(".lock").split("-")
        probe = FileLock(path)
        try:
            probe.acquire(timeout=0)
        except Timeout:
            held.add((table, int(version)))
        except OSError:
            continue  # released between the listing and now
        else:
            path.unlink(missing_ok=True)
            probe.release()
    return held


def _folder(index: Path) -> Path:
    folder = index / FOLDER
    folder.mkdir(exist_ok=True)
    return folder
