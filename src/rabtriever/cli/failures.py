"""What went wrong, in one sentence and with the right exit code; never a traceback."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from rabtriever.errors import RabtrieverError

__all__ = ["Failure", "describe"]

_EXTRAS = {
    "fastapi": "serve",
    "ir_measures": "eval",
    "mcp": "mcp",
    "mcp_types": "mcp",
    "prometheus_client": "serve",
    "scipy": "eval",
    "sentence_transformers": "eval",
    "uvicorn": "serve",
}
"""Optional packages and the extra that brings each."""

_HINTS = {
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EACCES: "check the permissions, or name another place",
    errno.EPERM: "check the permissions, or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file inside it",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as users and programs see it.

    Attributes:
        code: A stable name for programs.
        message: One sentence for people.
        hint: How to mend it, or an empty string.
        exit_code: 2 when the user can mend it, 1 when not, 130 after Ctrl-C.
    """

    code: str
    message: str
    hint: str
    exit_code: int

    def as_dict(self) -> dict[str, dict[str, str]]:
        """The ``--json`` form."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}

    def as_text(self) -> str:
        """The form for people."""
        return f"error: {self.message}" + (f"\nhint: {self.hint}" if self.hint else "")


def describe(error: BaseException) -> Failure:
    r"""Translate any exception.

    Example:
        >>> describe(FileNotFoundError(2, "No such file or directory", "corpus.jsonl")).as_text()
        'error: corpus.jsonl: no such file or directory\nhint: check the path'
    """
    if isinstance(error, RabtrieverError):
        return Failure(error.code, error.message, error.hint, error.exit_code)
    if hasattr(error, "format_message"):  # a usage error of click, or of the copy of click inside newer typers
        return _usage(error)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return Failure("interrupted", "stopped", "run the same command again", 130)
    if isinstance(error, OSError):
        return _operating_system(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in _EXTRAS:
        package = (error.name or "").partition(".")[0]
        hint = f"pip install 'rabtriever[{_EXTRAS[package]}]'"
        return Failure("missing_package", f"this needs the package {package}, which is not installed", hint, 2)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "use a smaller model or smaller batches, or close other programs"
        return Failure("out_of_memory", "the memory does not suffice", hint, 1)
    hint = "this is a fault of rabtriever; RABTRIEVER_DEBUG=1 shows where it happened"
    return Failure("internal", _sentence(f"{type(error).__name__}: {error}"), hint, 1)


def _usage(error: Any) -> Failure:
    context = getattr(error, "ctx", None)
    hint = f"see {context.command_path} --help" if context is not None else "see rabtriever --help"
    return Failure("usage", _sentence(error.format_message()).rstrip("."), hint, 2)


def _operating_system(error: OSError) -> Failure:
    if error.errno is None:  # transformers and huggingface_hub raise OSError with prose alone
        return Failure("os_error", _sentence(str(error) or type(error).__name__), "", 2)
    place = f"{error.filename}: " if error.filename is not None else ""
    reason = (error.strerror or type(error).__name__).lower()
    return Failure("os_error", _sentence(place + reason), _HINTS.get(error.errno, ""), 2)


def _sentence(text: str, limit: int = 400) -> str:
    """The text as a single line of bearable length."""
    words = " ".join(text.split())
    return words if len(words) <= limit else words[: limit - 1] + "…"
