"""What makes Lance's commits last, and what turns its errors into sentences.

Lance commits atomically and keeps every version that a reader holds, but leaves the flushing to the operating system;
here every commit is flushed to the disk before it counts as done. (Should the power fail between the two, that last
commit may be torn, and the version before it is whole: :func:`rabtriever.index.repair.repair` goes back to it.)
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rabtriever.errors import DataError, InputError, RabtrieverError

__all__ = ["Flusher", "lance_errors", "return_memory"]

_OPEN_TO_FLUSH = os.O_RDWR if os.name == "nt" else os.O_RDONLY
_GONE = "Not found|not found|No such file"


class Flusher:
    """Flushes what was written below a folder since the last time.

    Args:
        root: The folder of a table. Lance never changes a file, so each is flushed once.

    Example:
        >>> import tempfile
        >>> Flusher(Path(tempfile.mkdtemp())).flush()
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._flushed: set[str] = set()

    def flush(self) -> None:
        """Flush new files to the disk, and the folders that list them.

        Raises:
            OSError: The disk refuses.
        """
        for folder, _, names in os.walk(self._root):
            new = [path for name in names if (path := f"{folder}{os.sep}{name}") not in self._flushed]
            for path in new:
                with suppress(FileNotFoundError):  # cleaned up by another process
                    _flush(path)
            if new:
                with suppress(PermissionError):  # Windows opens no folders
                    _flush(folder)
            self._flushed.update(new)


def _flush(path: str) -> None:
    descriptor = os.open(path, _OPEN_TO_FLUSH)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def return_memory() -> None:
    """Give back to the system what the C library keeps of freed memory.

    Lance's many threads leave glibc's heaps in pieces: without this, a long ``add`` grows by some nine kilobytes a
    document, all of it free.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def lance_errors(verb: str, folder: Path) -> Iterator[None]:
    """Turn what the storage raises (``RuntimeError`` for nearly everything, or a panic) into one sentence.

    Args:
        verb: What is being done with the index: ``open``, ``read``, ``create`` or ``write to``.
        folder: The index.

    Raises:
        InputError: The disk is full (code ``disk_full``) or the folder may not be written.
        DataError: Opening or reading met damaged or missing files.
        RabtrieverError: Anything else, with the code ``storage``.
    """
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ in ("PanicException", "RustPanic")  # the first is not derived from Exception
        if not panic and not isinstance(error, (RuntimeError, OSError, ValueError, ArithmeticError)):
            raise
        # Without the places in Lance's own source that it appends.
        reason = re.sub(r",? ?(?:at )?\S+\.rs:\d+(?::\d+)?", "", str(error)).partition("\n")[0][:300]
        message, kept = f"cannot {verb} the index {folder}: {reason}", "what was stored before is kept"
        if re.search(r"os error (27|28|122)\b|No space left|File too large|quota exceeded", reason, re.IGNORECASE):
            raise InputError(message, hint=f"make room and run it again; {kept}", code="disk_full") from error
        if isinstance(error, PermissionError) or "Permission denied" in reason or "Read-only file system" in reason:
            raise InputError(message, hint="mend the folder's permissions, or use another folder") from error
        if verb in ("open", "read"):
            gone = re.search(_GONE, reason) is not None and verb == "read"
            hint = "`rabtriever check INDEX` names what is damaged, and `rabtriever repair INDEX` saves what it can"
            if gone:
                hint = f"refresh() or open it again if it was replaced meanwhile; else {hint}"
            raise DataError(message, hint=hint) from error
        raise RabtrieverError(message, hint=kept, code="storage") from error
