"""Documents from files and folders of any size, read as they are needed; bad lines stop the reading or are skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rabtriever.data import Dataset
from rabtriever.data.lines import show
from rabtriever.data.records import Document
from rabtriever.data.sources import Found, read_source
from rabtriever.errors import DataError
from rabtriever.files import write_text
from rabtriever.index.records import write_metadata

__all__ = ["Corpus", "OnError", "Skipped"]

OnError = Literal["stop", "skip"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that was passed over.

    Attributes:
        file: The file.
        line: The line, or the row; 0 where it is the whole file.
        problem: What is wrong with it.
    """

    file: str
    line: int
    problem: str


class Corpus:
    """The documents of several files, checked once from end to end and then read again as they are needed.

    Memory: one document, and the ids of all.

    Args:
        names: Files (.jsonl, .csv, .tsv, .txt, .parquet), dataset folders, folders of text files, or ``example``.
        on_error: Whether a bad line or an id that has come before stops the reading, or is skipped.

    Attributes:
        skipped: What was passed over.

    Raises:
        DataError: If a file is missing, there are no documents, or (unless they are skipped) a line is bad.

    Example:
        >>> len(Corpus(["example"])) > 60
        True
    """

    def __init__(self, names: Sequence[str], on_error: OnError = "stop") -> None:
        self._names, self._on_error = names, on_error
        self.skipped: list[Skipped] = []
        self._length = sum(1 for _ in self._read(self.skipped))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Document]:
        return self._read([])

    def write_skipped(self, path: Path) -> None:
        """Write what was skipped to a file, one JSON object on each line.

        Raises:
            InputError: The file cannot be written.
        """
        lines = [{"file": one.file, "line": one.line, "problem": one.problem} for one in self.skipped]
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines))

    def _read(self, skipped: list[Skipped]) -> Iterator[Document]:
        seen: dict[str, str] = {}
        for name in self._names:
            found_any = False
            for found in _read(name):
                try:
                    document = self._checked(found, name, seen)
                except DataError as error:
                    if self._on_error == "stop":
                        raise
                    skipped.append(Skipped(name if found.file is None else str(found.file), found.line, error.message))
                    continue
                found_any = True
                yield document
            if not found_any and self._on_error == "stop":
                raise DataError(f"{name} holds no documents")
        if not seen:
            raise DataError(f"{', '.join(self._names)}: no line holds a document", hint="mend the lines, or the format")

    def _checked(self, found: Found, name: str, seen: dict[str, str]) -> Document:
        document = found.get()
        write_metadata(document)
        place = name if found.file is None else f"{found.file}:{found.line}" if found.line else str(found.file)
        if document.id in seen:
            raise DataError(
                f"{place}: the id {show(document.id)} is in {seen[document.id]} already",
                hint="give every document an id of its own (a .txt file's lines are numbered: use .jsonl)",
            )
        seen[document.id] = name
        return document


def _read(name: str) -> Iterator[Found]:
    if name == "example":
        return (Found(None, 0, document) for document in Dataset.example().corpus.values())
    path = Path(name)
    if not path.exists():
        raise DataError(f"{name} does not exist", hint="check the path")
    return read_source(path)
