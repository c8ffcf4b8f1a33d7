"""Files and folders that are either written whole or not at all, and JSON read with errors that name the place.

Everything is written beside its target, flushed to the disk and moved into place, so that an interruption, a full disk
or Ctrl-C leaves the previous version as it was.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rabtriever.errors import DataError, InputError

__all__ = [
    "atomic_folder",
    "check_replaceable",
    "has_format_version",
    "human_bytes",
    "read_json",
    "write_json",
    "write_text",
    "writing",
]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def human_bytes(count: float) -> str:
    """A number of bytes for people.

    Example:
        >>> human_bytes(269_060_552)
        '269.1 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


@contextmanager
def writing(path: Path, fresh: Path | None = None) -> Iterator[None]:
    """Turn what the disk refuses while ``path`` is being written into a sentence for people.

    Args:
        path: The file or folder being written.
        fresh: Where its new version is being written, until it takes the place of ``path``.

    Raises:
        InputError: If the disk is full (code ``disk_full``), or if ``path`` may not be written. Other errors pass
            unchanged.
    """
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # safetensors reports I/O errors as its own exception, with the number in its text only.
        if number in _FULL or f"os error {errno.ENOSPC})" in str(error):
            parent = next(folder for folder in path.absolute().parents if folder.is_dir())
            free = shutil.disk_usage(parent).free
            # What failed may have been removed already, so both what is there and what is free were not enough.
            raise InputError(
                f"the disk is full: {path} needs more than {human_bytes(_size(fresh or path) + free)}"
                f" and {parent} has {human_bytes(free)} left",
                hint="free some space or choose another folder, then run it again; what was there before is untouched",
                code="disk_full",
            ) from error
        if isinstance(error, OSError) and number in _REFUSED and _concerns(error.filename, path):
            raise InputError(
                f"{error.filename} cannot be written: {error.strerror}",
                hint="choose another folder, or mend its permissions",
            ) from error
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file atomically; its folder is created where it is missing.

    Raises:
        InputError: If the disk is full; a file that was there before is untouched.
    """
    path = Path(path)
    fresh = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with writing(path, fresh), fresh.open("xb") as file:
            # A lone surrogate has no UTF-8 form; its escape is valid JSON and reads back as the same character.
            file.write(text.encode("utf-8", errors="backslashreplace"))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically.

    Numpy and torch scalars and arrays become numbers and lists.

    Raises:
        ValueError: If ``value`` holds NaN or an infinity, which JSON cannot express.
        TypeError: If ``value`` holds something that has no JSON form.
        InputError: If the disk is full.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        InputError: If the file is missing or cannot be read.
        DataError: If it is not UTF-8 or not JSON; the message names line and column.
    """
    path = Path(path)
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8", hint="save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not JSON ({error.msg})",
            hint="mend that line, or write the file anew",
        ) from error


def has_format_version(file: Path) -> bool:
    """Whether ``file`` is a JSON object with the key ``format_version``, which marks what this package saves."""
    try:
        found = read_json(file)
    except InputError:
        return False
    return isinstance(found, dict) and "format_version" in found


@contextmanager
def atomic_folder(
    path: Path | str, *, keep: Collection[str] = (), marker: str | None = "config.json"
) -> Iterator[Path]:
    """Write a folder whole or not at all: yields an empty sibling folder that takes ``path``'s place at the end.

    A folder that is already at ``path`` stays as it is until the new one is complete, and stays for good when the
    block raises anything (Ctrl-C too). It is only ever replaced if it is recognised as a former version.

    Args:
        path: Where the folder will be. A symbolic link is followed, and stays.
        keep: Names inside the old folder that move into the new one, unless the new one has its own.
        marker: A JSON file with the key ``format_version`` that every version of this folder has at its top. It
            tells a former version from a folder of something else, which must not be deleted. None: nothing is.

    Raises:
        InputError: If ``path`` is a file, or a folder of something else, or if the disk is full.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "model"
        >>> with atomic_folder(target) as folder:
        ...     write_json(folder / "config.json", {"format_version": 1})
        >>> [file.name for file in target.iterdir()]
        ['config.json']
    """
    path = Path(path).expanduser().resolve()
    check_replaceable(path, keep, marker)
    token = secrets.token_hex(4)
    fresh, old = path.with_name(f"{path.name}.tmp-{token}"), path.with_name(f"{path.name}.old-{token}")
    with writing(path):
        fresh.mkdir(parents=True)
    try:
        with writing(path, fresh):
            yield fresh
            _sync_tree(fresh)
        check_replaceable(path, keep, marker)  # it may have changed in the hours since
        _swap(fresh, path, old, keep)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(path: Path, keep: Collection[str] = (), marker: str | None = "config.json") -> None:
    """Refuse what :func:`atomic_folder` would refuse to replace; worth asking before the work that is to be saved.

    Raises:
        InputError: If ``path`` is a file, or a folder of something else.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file, but a folder is to be written there", hint="choose another output folder")
    if {entry.name for entry in path.iterdir()} <= set(keep):
        return
    if marker is not None and has_format_version(path / marker):
        return
    reason = f"it has no {marker} with a format_version" if marker is not None else "it is never replaced"
    raise InputError(
        f"{path} holds other files, which would be lost ({reason})",
        hint="choose another output folder, or empty this one yourself",
    )


def _swap(fresh: Path, path: Path, old: Path, keep: Collection[str]) -> None:
    """Put ``fresh`` where ``path`` is. If the process dies between the two renames, ``old`` holds all of ``path``."""
    if path.exists():
        path.rename(old)
    try:
        fresh.rename(path)
    except BaseException:
        if old.exists():
            old.rename(path)
        raise
    for name in keep:
        if (old / name).exists() and not (path / name).exists():
            (old / name).rename(path / name)
    _sync_folder(path.parent)


def _sync_tree(folder: Path) -> None:
    """Flush every file to the disk, and give all of them the permissions that new files have here.

    (safetensors creates its files for their owner alone, whatever the umask says.)
    """
    mode = folder.stat().st_mode & 0o666
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root) / name
            if file.is_symlink():
                continue
            file.chmod(mode)
            with file.open("r+b") as opened:  # Windows flushes only what may be written
                os.fsync(opened.fileno())
        _sync_folder(Path(root))


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # Windows and some network disks cannot open or sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _concerns(filename: object, path: Path) -> bool:
    """Whether an error is about ``path``, something in it or beside it, or a folder that leads to it."""
    if not isinstance(filename, str):
        return False
    found = Path(filename).absolute()
    return found in path.absolute().parents or found.is_relative_to(path.absolute().parent)


def _size(path: Path) -> int:
    with suppress(OSError):
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        return sum(file.stat().st_size for file in files)
    return 0


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form: {value!r}")
