"""Reading documents from files that people have: JSON lines, CSV, TSV, plain text."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from rabtriever.data.lines import numbered_lines, parse_object, raw_lines, show
from rabtriever.data.records import Document, check_new, document_from
from rabtriever.errors import DataError

__all__ = ["read_documents"]


def read_documents(path: str | Path) -> Iterator[Document]:
    r"""Read a file of documents, one at a time.

    The ending says what the file is:

    - ``.jsonl``: an object on each line, with ``_id`` or ``id``, ``text``, and perhaps ``title`` and ``metadata``.
    - ``.csv``, ``.tsv``: a header with at least ``_id`` or ``id``, and ``text``; perhaps ``title``. Quotes have a
      meaning in ``.csv`` alone.
    - ``.txt``: a document on each line; its id is the number of the line.

    Other keys and columns are kept as metadata.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing or malformed, an id occurs twice, or there is no document; the message names
            file, line and value.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "skills.csv"
        >>> _ = path.write_text("id,text,room\nd1,find a sponge,kitchen\n")
        >>> next(read_documents(path))
        Document(id='d1', text='find a sponge', title='', metadata={'room': 'kitchen'})
    """
    file = Path(path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise DataError(
            f"{file} has the ending {show(file.suffix)}, which no reader knows",
            hint=f"use one of: {', '.join(_READERS)}",
        )
    if not file.is_file():
        problem = "is not a file" if file.exists() else "does not exist"
        raise DataError(f"{file} {problem}", hint="check the path")
    return _checked(file, reader)


def _checked(path: Path, reader: Callable[[Path], Iterator[tuple[int, Document]]]) -> Iterator[Document]:
    lines: dict[str, int] = {}
    for number, document in reader(path):
        check_new(document.id, lines, path, number)
        yield document
    if not lines:
        raise DataError(f"{path} holds no documents")


def _read_jsonl(path: Path) -> Iterator[tuple[int, Document]]:
    for number, line in numbered_lines(path):
        yield number, document_from(parse_object(path, number, line), f"{path}:{number}")


def _read_csv(path: Path) -> Iterator[tuple[int, Document]]:
    return _read_table(path, ",")


def _read_tsv(path: Path) -> Iterator[tuple[int, Document]]:
    return _read_table(path, "\t")


def _read_text(path: Path) -> Iterator[tuple[int, Document]]:
    for number, line in numbered_lines(path):
        yield number, Document(str(number), line)


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_tsv, ".txt": _read_text}


def _read_table(path: Path, delimiter: str) -> Iterator[tuple[int, Document]]:
    rows = _rows(path, delimiter)
    top, header = next(rows, (1, []))
    for columns in (("_id", "id"), ("text",)):
        if header and not set(columns) & set(header):
            raise DataError(
                f"{path}:{top}: the header has no column {' or '.join(columns)}: {show(delimiter.join(header))}",
                hint="name the columns in the first line: id, text, and perhaps title",
            )
    if len(set(header)) != len(header):
        raise DataError(f"{path}:{top}: a column name occurs twice: {show(delimiter.join(header))}")
    for number, row in rows:
        if len(row) != len(header):
            raise DataError(
                f"{path}:{number}: expected {len(header)} columns as in the header, found {len(row)}: "
                f"{show(delimiter.join(row))}",
                hint="a CSV field that holds commas or line breaks must stand in double quotes",
            )
        yield number, document_from(dict(zip(header, row, strict=True)), f"{path}:{number}")


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that hold something, with the number of their first line."""
    # The module's default refuses fields over 128 KiB; the limit is global to the process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    lines = (line for _, line in raw_lines(path))
    if delimiter == "\t":  # tab-separated files know no quotes
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
    else:  # a quoted field may go on over several lines
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}:{number}: not valid CSV ({error})", hint='write quotes inside a quoted field twice: ""'
            ) from None
        if any(field and not field.isspace() for field in row):
            yield number, row
