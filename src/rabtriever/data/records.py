"""The two records everything starts from, documents and queries, and their JSON form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rabtriever.data.lines import numbered_lines, parse_object, show, type_name
from rabtriever.errors import DataError

__all__ = [
    "Document",
    "Query",
    "check_id",
    "check_new",
    "document_from",
    "query_from",
    "read_records",
    "record_of",
    "write_records",
]

# Control characters would break the columns and lines of a qrels file (or cut the id short in C code behind
# trec_eval), and lone surrogates cannot be written as UTF-8. Texts may hold all of them.
_FORBIDDEN_IN_IDS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    r"""A document: what is retrieved.

    Args:
        id: Unique in its corpus.
        text: The text; may be empty.
        title: A title, or an empty string.
        metadata: Anything else that is known, as JSON values.

    Example:
        >>> Document("s2", "Put the feeling into words.", title="Reflection").content
        'Reflection\nPut the feeling into words.'
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def content(self) -> str:
        """What models read: the title on a line of its own, where there is one, then the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """A query: what documents are retrieved for.

    Args:
        id: Unique in its dataset.
        text: The text.
        metadata: Anything else that is known, as JSON values. Models never read it.

    Example:
        >>> Query("q1", "I just lost my job").id
        'q1'
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


Record = TypeVar("Record", Document, Query)


def document_from(record: Mapping[str, Any], place: str) -> Document:
    """Build a document from a JSON object with ``_id`` (or ``id``), ``text`` and perhaps ``title`` and ``metadata``.

    Other keys are kept as metadata; where ``metadata`` has the same key, ``metadata`` wins.

    Args:
        record: The parsed object.
        place: Where it stands, ``FILE:LINE``, for error messages.

    Raises:
        DataError: A key is missing or has the wrong type.

    Example:
        >>> document_from({"id": "d1", "text": "find a sponge", "room": "kitchen"}, "skills.jsonl:1").metadata
        {'room': 'kitchen'}
    """
    title = record.get("title")
    if title is not None and not isinstance(title, str):
        raise DataError(f'{place}: "title" must be a string, found {type_name(title)}: {show(title)}')
    return Document(_id(record, place), _text(record, place), title or "", _metadata(record, place))


def query_from(record: Mapping[str, Any], place: str) -> Query:
    """Build a query from a JSON object with ``_id`` (or ``id``), ``text`` and perhaps ``metadata``.

    Args:
        record: The parsed object.
        place: Where it stands, ``FILE:LINE``, for error messages.

    Raises:
        DataError: A key is missing or has the wrong type, or the text is empty.

    Example:
        >>> query_from({"_id": "q1", "text": "I spilled my coke"}, "queries.jsonl:1").text
        'I spilled my coke'
    """
    text = _text(record, place)
    if not text.strip():
        raise DataError(f'{place}: the "text" of the query is empty', hint="write the query's text, or drop the line")
    return Query(_id(record, place), text, _metadata(record, place))


def record_of(item: Document | Query) -> dict[str, Any]:
    """Return the JSON object of a record, as BEIR writes it.

    Example:
        >>> record_of(Document("d1", "find a sponge"))
        {'_id': 'd1', 'title': '', 'text': 'find a sponge'}
    """
    record: dict[str, Any] = {"_id": item.id}
    if isinstance(item, Document):
        record["title"] = item.title
    record["text"] = item.text
    if item.metadata:
        record["metadata"] = dict(item.metadata)
    return record


def read_records(path: Path, build: Callable[[Mapping[str, Any], str], Record], what: str) -> dict[str, Record]:
    """Read a file with one JSON object on each line.

    Args:
        path: The file.
        build: :func:`document_from` or :func:`query_from`.
        what: What the file should hold, for the error message.

    Returns:
        Id -> record, in file order.

    Raises:
        DataError: A line is malformed, an id occurs twice, or the file holds nothing.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "corpus.jsonl"
        >>> _ = path.write_text('{"_id": "d1", "text": "find a sponge"}')
        >>> list(read_records(path, document_from, "documents"))
        ['d1']
    """
    records: dict[str, Record] = {}
    lines: dict[str, int] = {}
    for number, line in numbered_lines(path):
        record = build(parse_object(path, number, line), f"{path}:{number}")
        check_new(record.id, lines, path, number)
        records[record.id] = record
    if not records:
        raise DataError(f"{path} holds no {what}", hint="write one JSON object on each line")
    return records


def write_records(path: Path, records: Iterable[Record]) -> None:
    r"""Write one JSON object on each line.

    Raises:
        DataError: A record's metadata is not JSON.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "queries.jsonl"
        >>> write_records(path, [Query("q1", "I spilled my coke")])
        >>> path.read_text()
        '{"_id": "q1", "text": "I spilled my coke"}\n'
    """
    with path.open("wb") as file:
        for record in records:
            try:
                line = json.dumps(record_of(record), ensure_ascii=False, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise DataError(f"the metadata of {show(record.id)} cannot be written as JSON: {error}") from None
            try:
                raw = line.encode("utf-8")
            except UnicodeEncodeError:  # a lone surrogate: JSON can write it as an escape, UTF-8 cannot
                raw = json.dumps(record_of(record)).encode("ascii")
            file.write(raw + b"\n")


def check_id(value: object, place: str, key: str = "_id") -> str:
    """Return the id, or say what is wrong with it.

    Raises:
        DataError: The id is not a string, is empty, or holds control characters or lone surrogates.

    Example:
        >>> check_id("d1", "corpus.jsonl:1")
        'd1'
    """
    if not isinstance(value, str):
        raise DataError(
            f'{place}: "{key}" must be a string, found {type_name(value)}: {show(value)}',
            hint='put the id in quotes, as in "_id": "17"',
        )
    if not value.strip():
        raise DataError(f'{place}: "{key}" is empty', hint="give every line an id of its own")
    if _FORBIDDEN_IN_IDS.search(value):
        raise DataError(
            f'{place}: "{key}" {show(value)} holds a control character or a lone surrogate',
            hint="use printable characters in ids",
        )
    return value


def check_new(value: str, lines: dict[str, int], path: Path, number: int) -> None:
    """Note an id and its line, and refuse one that was there already.

    Raises:
        DataError: The id was used before; the message names both lines.

    Example:
        >>> check_new("d1", {}, Path("corpus.jsonl"), 1)
    """
    if lines.setdefault(value, number) != number:
        raise DataError(
            f"{path}:{number}: the id {show(value)} was used in line {lines[value]} already",
            hint="give every line an id of its own",
        )


def _id_key(record: Mapping[str, Any]) -> str:
    return "_id" if "_id" in record else "id"


def _id(record: Mapping[str, Any], place: str) -> str:
    key = _id_key(record)
    if key not in record:
        raise DataError(f'{place}: "_id" is missing', hint='write each line as {"_id": "...", "text": "..."}')
    return check_id(record[key], place, key)


def _text(record: Mapping[str, Any], place: str) -> str:
    if "text" not in record:
        raise DataError(f'{place}: "text" is missing', hint='write each line as {"_id": "...", "text": "..."}')
    text = record["text"]
    if not isinstance(text, str):
        raise DataError(f'{place}: "text" must be a string, found {type_name(text)}: {show(text)}')
    return text


def _metadata(record: Mapping[str, Any], place: str) -> dict[str, Any]:
    metadata = record.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise DataError(
            f'{place}: "metadata" must be an object, found {type_name(metadata)}: {show(metadata)}',
            hint='write it as {"key": value}',
        )
    known = (_id_key(record), "title", "text", "metadata")
    extra = {key: value for key, value in record.items() if key not in known}
    return {**extra, **(metadata or {})}
