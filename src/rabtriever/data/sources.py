r"""The kinds of files that documents come from, each read one document at a time.

A reader yields what it found at each line, a document or what is wrong there, and goes on: whether to stop is decided
by who reads (:class:`rabtriever.index.corpus.Corpus`).
"""

from __future__ import annotations

import csv
import datetime
import decimal
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rabtriever.data.lines import parse_object, show
from rabtriever.data.records import Document, check_id, document_from
from rabtriever.errors import DataError

__all__ = ["Found", "read_source"]

_TEXTS = (".txt", ".md")
_ESCAPED = re.compile("[\udc80-\udcff]")
_MARK = b"\xef\xbb\xbf"
_ROWS = 256


@dataclass(frozen=True, slots=True)
class Found:
    """A document, or what is wrong where one should be.

    Attributes:
        file: The file; None for a dataset that is not read from one.
        line: The line or row, from 1; 0 where the document is the whole file.
        result: The document, or the error.
    """

    file: Path | None
    line: int
    result: Document | DataError

    def get(self) -> Document:
        """The document.

        Raises:
            DataError: There is none.
        """
        if isinstance(self.result, DataError):
            raise self.result
        return self.result


def read_source(path: Path, *, folders: bool = True) -> Iterator[Found]:
    r"""Read a file, a dataset folder (its ``corpus.jsonl``), or a folder of text files (``.txt`` and ``.md``).

    In a folder of text files each file is a document, whose id is its path in the folder; ``folders=False`` refuses
    folders.

    Raises:
        DataError: The path is missing, or of a kind that no reader knows.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "skills.jsonl"
        >>> _ = file.write_text('{"id": "d1", "text": "find a sponge"}\noops\n')
        >>> [type(found.result).__name__ for found in read_source(file)]
        ['Document', 'DataError']
    """
    if folders and path.is_dir():
        return _jsonl(path / "corpus.jsonl") if (path / "corpus.jsonl").is_file() else _folder(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} has the ending {show(path.suffix)}, which no reader knows",
            hint=f"use one of: {', '.join(_READERS)}" + (", or a folder of text files" if folders else ""),
        )
    if not path.is_file():
        raise DataError(f"{path} {'is not a file' if path.exists() else 'does not exist'}", hint="check the path")
    return reader(path)


def _attempt(file: Path, line: int, make: Callable[[], Document]) -> Found:
    try:
        return Found(file, line, make())
    except DataError as error:
        return Found(file, line, error)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their ends; bytes that are not UTF-8 come as lone surrogates, which :func:`_whole` refuses."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                yield number, (raw.removeprefix(_MARK) if number == 1 else raw).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check the path") from None


def _whole(text: str, place: str) -> str:
    """The text, if all of it was UTF-8."""
    bad = _ESCAPED.search(text)
    if bad is not None:
        before = len(text[: bad.start()].encode("utf-8", "surrogateescape"))
        byte = ord(bad[0]) - 0xDC00
        raise DataError(f"{place}: byte {before + 1} of the line is 0x{byte:02x}, not UTF-8", hint="save it as UTF-8")
    return text


def _jsonl(path: Path) -> Iterator[Found]:
    for number, line in _lines(path):
        if line and not line.isspace():
            place = f"{path}:{number}"

            def make(number: int = number, line: str = line, place: str = place) -> Document:
                return document_from(parse_object(path, number, _whole(line, place).rstrip("\r\n")), place)

            yield _attempt(path, number, make)


def _text_lines(path: Path) -> Iterator[Found]:
    for number, line in _lines(path):
        if line and not line.isspace():
            stripped = line.removesuffix("\n").removesuffix("\r")
            yield _attempt(
                path,
                number,
                lambda n=number, t=stripped: Document(str(n), _whole(t, f"{path}:{n}")),  # type: ignore[misc]
            )


def _csv(path: Path) -> Iterator[Found]:
    return _table(path, ",")


def _tsv(path: Path) -> Iterator[Found]:
    return _table(path, "\t")


def _table(path: Path, delimiter: str) -> Iterator[Found]:
    # The module's default refuses fields over 128 KiB; the limit is global to the process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    lines = (line for _, line in _lines(path))
    if delimiter == "\t":  # tab-separated files know no quotes
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:  # a quoted field may go on over several lines
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            hint = 'write quotes inside a quoted field twice: ""'
            yield Found(path, number, DataError(f"{path}:{number}: not valid CSV ({error})", hint=hint))
            continue
        if not any(field and not field.isspace() for field in row):
            continue
        if header is None:
            header = _header(path, number, row, delimiter)
            continue
        yield _attempt(path, number, lambda h=header, r=row, n=number: _row(path, n, h, r, delimiter))  # type: ignore[misc]


def _header(path: Path, number: int, header: list[str], delimiter: str) -> list[str]:
    place, shown = f"{path}:{number}", show(delimiter.join(header))
    for columns in (("_id", "id"), ("text",)):
        if not set(columns) & set(header):
            raise DataError(
                f"{place}: the header has no column {' or '.join(columns)}: {shown}",
                hint="name the columns in the first line: id, text, and perhaps title",
            )
    if len(set(header)) != len(header):
        raise DataError(f"{place}: a column name occurs twice: {shown}")
    return header


def _row(path: Path, number: int, header: list[str], row: list[str], delimiter: str) -> Document:
    place = f"{path}:{number}"
    shown = _whole(delimiter.join(row), place)
    if len(row) != len(header):
        raise DataError(
            f"{place}: expected {len(header)} columns as in the header, found {len(row)}: {show(shown)}",
            hint="a CSV field that holds commas or line breaks must stand in double quotes",
        )
    return document_from(dict(zip(header, row, strict=True)), place)


def _parquet(path: Path) -> Iterator[Found]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(_ROWS):
                for record in batch.to_pylist():
                    number += 1
                    yield _attempt(path, number, lambda r=record, n=number: _record(r, f"{path}, row {n}"))  # type: ignore[misc]
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise DataError(f"{path} is not a Parquet file that can be read: {reason}", hint="write it anew") from None


def _record(record: Mapping[str, Any], place: str) -> Document:
    plain = {name: _plain(value) for name, value in record.items() if value is not None}
    for key in ("_id", "id"):
        if type(plain.get(key)) is int:
            plain[key] = str(plain[key])
    return document_from(plain, place)


def _plain(value: Any) -> Any:
    """What Parquet has types for and JSON has not: times as ISO 8601, decimals as numbers."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _folder(path: Path) -> Iterator[Found]:
    for root, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in _TEXTS:
                file = Path(root) / name
                yield _attempt(file, 0, lambda f=file: _file(f, f.relative_to(path).as_posix()))  # type: ignore[misc]


def _file(file: Path, id: str) -> Document:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: byte {error.start + 1} is not UTF-8", hint="save the file as UTF-8") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}", hint="check its permissions") from None
    return Document(check_id(id, str(file), "id"), text)


_READERS = {".jsonl": _jsonl, ".csv": _csv, ".tsv": _tsv, ".txt": _text_lines, ".parquet": _parquet}
