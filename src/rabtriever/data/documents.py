"""Reading documents from files that people have: JSON lines, CSV, TSV, plain text, Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rabtriever.data.records import Document, check_new
from rabtriever.data.sources import Found, read_source
from rabtriever.errors import DataError

__all__ = ["read_documents"]


def read_documents(path: str | Path) -> Iterator[Document]:
    r"""Read a file of documents, one at a time.

    The ending says what the file is:

    - ``.jsonl``: an object on each line, with ``_id`` or ``id``, ``text``, and perhaps ``title`` and ``metadata``.
    - ``.csv``, ``.tsv``: a header with at least ``_id`` or ``id``, and ``text``; perhaps ``title``. Quotes have a
      meaning in ``.csv`` alone.
    - ``.txt``: a document on each line; its id is the number of the line.
    - ``.parquet``: columns as in ``.csv``.

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
    return _checked(Path(path), read_source(Path(path), folders=False))


def _checked(path: Path, found: Iterator[Found]) -> Iterator[Document]:
    lines: dict[str, int] = {}
    for one in found:
        document = one.get()
        check_new(document.id, lines, path, one.line)
        yield document
    if not lines:
        raise DataError(f"{path} holds no documents")
