"""One process at a time trains into a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rabtriever.errors import InputError

__all__ = ["training_lock"]


@contextmanager
def training_lock(runs: Path) -> Iterator[None]:
    """Hold the folder of a training's state, which is made if need be; the lock goes with the process that holds it.

    Args:
        runs: The folder ``runs`` of the model that is trained.

    Raises:
        InputError: If another process holds it.

    Example:
        >>> with training_lock(Path("household") / "runs"):       # doctest: +SKIP
        ...     ...
    """
    runs.mkdir(parents=True, exist_ok=True)
    lock = FileLock(runs / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"another process is training into {runs.parent}", hint="wait for it, or choose another output folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
