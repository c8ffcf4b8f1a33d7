"""Reading text files line by line, strictly: UTF-8 only, and every error names the file and the line.

Lines end at a line feed alone (a carriage return before it is dropped). ``str.splitlines`` would also break at U+2028,
form feeds and others, which are legal inside JSON strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from rabtriever.errors import DataError

__all__ = ["numbered_lines", "parse_object", "raw_lines", "show", "type_name"]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_JSON_TYPES = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}


def raw_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield every line of a UTF-8 file with its end and its number from 1; a byte order mark is skipped.

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lines.txt"
        >>> _ = path.write_bytes(b"one\r\n\nthree")
        >>> list(raw_lines(path))
        [(1, 'one\r\n'), (2, '\n'), (3, 'three')]
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    raw = raw.removeprefix(_BYTE_ORDER_MARK)
                try:
                    yield number, raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: byte {error.start + 1} of the line is 0x{raw[error.start]:02x}, not UTF-8",
                        hint="save the file as UTF-8",
                    ) from None
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", hint="check the path") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check the path") from None


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Yield the lines that hold something, without their ends; blank lines are skipped but counted.

    Raises:
        DataError: The file cannot be read, or a line is not UTF-8.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "lines.txt"
        >>> _ = path.write_bytes(b"one\r\n\nthree")
        >>> list(numbered_lines(path))
        [(1, 'one'), (3, 'three')]
    """
    for number, line in raw_lines(path):
        if not line.isspace() and line:
            yield number, line.removesuffix("\n").removesuffix("\r")


def parse_object(path: Path, number: int, line: str) -> dict[str, Any]:
    """Parse one line as a JSON object.

    Raises:
        DataError: The line is not JSON (RFC 8259, so NaN and Infinity are refused), or not an object.

    Example:
        >>> parse_object(Path("corpus.jsonl"), 1, '{"_id": "d1"}')
        {'_id': 'd1'}
    """
    try:
        value = _decoder.decode(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{number}: not valid JSON at column {error.colno} ({error.msg}): {show(line)}",
            hint="each line must hold one JSON object",
        ) from None
    except ValueError as error:  # from _refuse_constant, or a number with thousands of digits
        raise DataError(f"{path}:{number}: not valid JSON: {error}", hint="quote the value as a string") from None
    except RecursionError:
        raise DataError(
            f"{path}:{number}: the JSON is nested too deeply", hint="each line must hold one flat JSON object"
        ) from None
    if not isinstance(value, dict):
        raise DataError(
            f"{path}:{number}: expected a JSON object, found {type_name(value)}: {show(line)}",
            hint='write each line as {"_id": "...", "text": "..."}',
        )
    return value


def show(value: object) -> str:
    """Write a value for an error message: quoted, without line breaks, at most 60 characters.

    Example:
        >>> show("a" * 100)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...'"
    """
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def type_name(value: object) -> str:
    """Name the JSON type of a parsed value.

    Example:
        >>> type_name([1]), type_name(2.5), type_name(None)
        ('an array', 'a number', 'null')
    """
    return _JSON_TYPES.get(type(value), "a number")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
