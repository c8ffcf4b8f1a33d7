"""Rankings in TREC's run format, which every other tool of the field reads (trec_eval, ir_measures, ranx, Anserini)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from rabtriever.errors import InputError
from rabtriever.files import write_text

__all__ = ["Run", "run_file", "write_run"]

Run = dict[str, list[tuple[str, float]]]
"""Query id -> documents with their scores, best first."""


def run_file(folder: str | Path, system: str) -> Path:
    """Where a system's run stands: its name, with what a file name cannot hold written as in an address.

    Example:
        >>> run_file("runs", "dense:org/model").name
        'dense%3Aorg%2Fmodel.trec'
    """
    return Path(folder) / f"{quote(system, safe='')}.trec"


def write_run(path: str | Path, rankings: Mapping[str, Sequence[tuple[str, float]]], tag: str) -> None:
    """Write a run, atomically: lines of query, ``Q0``, document, rank from 1, score and tag.

    Ties stand in the order that was measured. Tools that order by score alone may break them in another way.

    Args:
        path: The file; its folder is made where it is missing.
        rankings: Query id -> documents with their scores, best first.
        tag: The system's name.

    Raises:
        InputError: If an id or the tag holds a space, which the format cannot say, or the file cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> write_run(file := Path(mkdtemp()) / "bm25.trec", {"q1": [("d2", 1.5), ("d1", 0.25)]}, "bm25")
        >>> print(file.read_text(), end="")
        q1 Q0 d2 1 1.5 bm25
        q1 Q0 d1 2 0.25 bm25
    """
    lines = []
    for query, ranking in rankings.items():
        for rank, (document, score) in enumerate(ranking, 1):
            for part in (query, document, tag):
                if len(part.split()) != 1:
                    raise InputError(
                        f"{part!r} cannot stand in a TREC run, whose columns are divided by spaces",
                        hint="rename it, or leave the runs out",
                    )
            lines.append(f"{query} Q0 {document} {rank} {float(score)!r} {tag}\n")
    write_text(path, "".join(lines))
