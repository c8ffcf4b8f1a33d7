"""Judgements: ``qrels/SPLIT.tsv`` files with the columns query-id, corpus-id and score."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from rabtriever.data.lines import numbered_lines, show
from rabtriever.errors import DataError

__all__ = ["Judgements", "UnknownIdError", "read_judgements", "write_judgements"]

_HINT = "write three columns separated by tabs: query-id, corpus-id, score"

Judgements = dict[str, dict[str, int]]
"""Query id -> document id -> grade; a document is relevant when its grade is above 0."""


class UnknownIdError(DataError):
    """A judgement names a query or a document that the dataset does not hold."""


def read_judgements(
    path: Path, queries: Collection[str], documents: Collection[str], skip_unknown_queries: bool = False
) -> Judgements:
    r"""Read one qrels file.

    The header line may be missing. A pair that is judged twice is accepted when both grades are equal.

    Args:
        path: The file.
        queries: The known query ids.
        documents: The known document ids.
        skip_unknown_queries: Skip the judgements of unknown queries instead of refusing them.

    Raises:
        DataError: A line does not have three columns, a grade is not an integer, or a pair has two grades.
        UnknownIdError: A line names an unknown query or document.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "test.tsv"
        >>> _ = path.write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
        >>> read_judgements(path, {"q1"}, {"d1", "d2"})
        {'q1': {'d1': 1}}
    """
    judgements: Judgements = {}
    seen: dict[tuple[str, str], int] = {}
    first = True
    for number, line in numbered_lines(path):
        columns = line.split("\t")
        is_header, first = first and _is_header(columns), False
        if is_header:
            continue
        if len(columns) != 3:
            raise DataError(f"{path}:{number}: expected 3 columns, found {len(columns)}: {show(line)}", hint=_HINT)
        query, document, text = columns
        grade = _grade(text, path, number)
        if query not in queries:
            if skip_unknown_queries:
                continue
            raise _unknown(path, number, "query", query)
        if document not in documents:
            raise _unknown(path, number, "document", document)
        earlier = seen.setdefault((query, document), number)
        grades = judgements.setdefault(query, {})
        if earlier != number and grades[document] != grade:
            raise DataError(
                f"{path}:{number}: query {show(query)} and document {show(document)} have grade {grade} here "
                f"but {grades[document]} in line {earlier}",
                hint="keep one of the two lines",
            )
        grades[document] = grade
    return judgements


def write_judgements(path: Path, judgements: Mapping[str, Mapping[str, int]]) -> None:
    """Write one qrels file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "test.tsv"
        >>> write_judgements(path, {"q1": {"d1": 1}})
        >>> read_judgements(path, {"q1"}, {"d1"})
        {'q1': {'d1': 1}}
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        for query, grades in judgements.items():
            for document, grade in grades.items():
                file.write(f"{query}\t{document}\t{grade}\n")


def _is_header(columns: list[str]) -> bool:
    return columns[-1].strip().lower() in ("score", "grade", "relevance", "label")


def _grade(text: str, path: Path, number: int) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"{path}:{number}: the grade must be an integer, found {show(text)}", hint=_HINT) from None


def _unknown(path: Path, number: int, kind: str, value: str) -> UnknownIdError:
    file = "query file" if kind == "query" else "corpus"
    return UnknownIdError(
        f"{path}:{number}: the {file} holds no {kind} {show(value)}", hint="add it there, or remove the judgement"
    )
