"""The errors that users meet: one sentence that says what is wrong, and one that says how to mend it."""

from __future__ import annotations

__all__ = ["DataError", "InputError", "MismatchError", "RabtrieverError", "package_missing"]


class RabtrieverError(Exception):
    """An error with a message for people, a hint that mends it and a code for programs.

    Args:
        message: One sentence: the file and line where there is one, the value, what was expected.
        hint: How to mend it, or an empty string.
        code: A stable, machine-readable name; the class's own code when left out.

    Example:
        >>> str(RabtrieverError("the index is locked", hint="wait for the other writer"))
        'the index is locked; wait for the other writer'
    """

    code = "internal"
    exit_code = 1

    def __init__(self, message: str, hint: str = "", code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class InputError(RabtrieverError):
    """Bad usage or bad input: the user can mend it. The command line exits with 2."""

    code = "bad_input"
    exit_code = 2


class DataError(InputError):
    """A data file that breaks its format; the message names file and line."""

    code = "bad_data"


class MismatchError(InputError):
    """Two artefacts that do not belong together (base model, prompt, tokenizer, index)."""

    code = "mismatch"


def package_missing(what: str, error: ModuleNotFoundError, extra: str) -> InputError:
    """The error for a package that an extra brings and that is not installed, to be raised in place of Python's own.

    Args:
        what: What needs it.
        error: Python's error.
        extra: The extra of this package that brings it.

    Example:
        >>> str(package_missing("qdrant", ModuleNotFoundError(name="qdrant_client"), "qdrant"))
        "qdrant needs the package qdrant_client, which is not installed; pip install 'rabtriever[qdrant]'"
    """
    package = (error.name or extra).partition(".")[0]
    return InputError(
        f"{what} needs the package {package}, which is not installed",
        hint=f"pip install 'rabtriever[{extra}]'",
        code="missing_package",
    )
