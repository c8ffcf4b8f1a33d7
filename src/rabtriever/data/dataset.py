"""A retrieval dataset in BEIR layout: a corpus, queries, and judgements for each split."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path

from rabtriever.data.lines import show
from rabtriever.data.qrels import Judgements, UnknownIdError, read_judgements, write_judgements
from rabtriever.data.records import (
    Document,
    Query,
    document_from,
    query_from,
    read_records,
    record_of,
    write_records,
)
from rabtriever.errors import DataError, InputError

__all__ = ["Dataset", "sample"]

_LAYOUT = "a dataset is a folder with corpus.jsonl, queries.jsonl and qrels/{train,dev,test}.tsv"
_STANDARD_SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Dataset:
    """A corpus, queries and judgements. Treat it as read-only.

    Args:
        name: A short name, for reports.
        corpus: Document id -> document, in file order.
        queries: Query id -> query, in file order.
        qrels: Split -> query id -> document id -> grade. A document is relevant when its grade is above 0.

    Raises:
        DataError: A judgement names an unknown query or document.

    Example:
        >>> dataset = Dataset(
        ...     "toy",
        ...     corpus={"d1": Document("d1", "find a sponge"), "d2": Document("d2", "open the door")},
        ...     queries={"q1": Query("q1", "I spilled my coke")},
        ...     qrels={"test": {"q1": {"d1": 1}}},
        ... )
        >>> [query.text for query in dataset.split("test")], dataset.relevant("test", "q1")
        (['I spilled my coke'], {'d1'})
    """

    name: str
    corpus: Mapping[str, Document]
    queries: Mapping[str, Query]
    qrels: Mapping[str, Mapping[str, Mapping[str, int]]]
    _refused: Mapping[str, DataError] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        for split, judgements in self.qrels.items():
            for query, grades in judgements.items():
                if query not in self.queries:
                    raise DataError(f"qrels of {show(split)}: unknown query id {show(query)}")
                for document in grades:
                    if document not in self.corpus:
                        raise DataError(f"qrels of {show(split)}: unknown document id {show(document)}")

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        corpus: str = "corpus.jsonl",
        queries: str = "queries.jsonl",
        qrels: str = "qrels",
        skip_unknown_queries: bool = False,
    ) -> Dataset:
        """Read a dataset folder in BEIR layout.

        Every ``qrels/*.tsv`` is a split. A judgement with an unknown id is refused. One exception: a split other than
        train, dev and test may belong to another corpus or query file of the same folder, so its error is raised
        only when that split is asked for.

        Args:
            path: The folder; its name becomes the dataset's name.
            corpus: The corpus file in the folder.
            queries: The query file in the folder.
            qrels: The folder of judgements in the folder.
            skip_unknown_queries: Leave out the judgements of queries that the query file does not hold, for query
                files that hold only a part of the queries.

        Raises:
            DataError: A file is missing or malformed; the message names file, line and value.

        Example:
            >>> dataset = Dataset.load("path/to/folder")  # doctest: +SKIP
        """
        folder = Path(path)
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise DataError(f"{folder} {problem}", hint=_LAYOUT)
        documents = read_records(_file(folder, corpus), document_from, "documents")
        query_records = read_records(_file(folder, queries), query_from, "queries")
        splits: dict[str, Judgements] = {}
        refused: dict[str, DataError] = {}
        for file in _qrels_files(folder, qrels):
            try:
                judgements = read_judgements(file, query_records, documents, skip_unknown_queries)
            except UnknownIdError as error:
                if file.stem in _STANDARD_SPLITS:
                    raise
                refused[file.stem] = error
                continue
            if judgements:
                splits[file.stem] = judgements
            else:
                refused[file.stem] = DataError(f"{file} holds no judgements of known queries")
        return cls(folder.resolve().name, documents, query_records, splits, _refused=refused)

    @classmethod
    def example(cls) -> Dataset:
        """Load the dataset that comes with the package: a household robot's skills.

        Example:
            >>> Dataset.example().name
            'household'
        """
        with resources.as_file(resources.files("rabtriever.data").joinpath("household")) as folder:
            return cls.load(folder)

    def save(self, path: str | Path) -> None:
        """Write the dataset as a folder in BEIR layout; the folder appears complete or not at all.

        Args:
            path: A folder that does not exist yet, or is empty.

        Raises:
            InputError: The folder holds something already, or cannot be written.
            DataError: A record's metadata is not JSON.

        Example:
            >>> folder = Path(tempfile.mkdtemp()) / "copy"
            >>> Dataset.example().save(folder)
            >>> Dataset.load(folder).fingerprint == Dataset.example().fingerprint
            True
        """
        folder = Path(path)
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise InputError(f"{folder} exists already", hint="choose a new folder, or delete this one first")
        scratch: Path | None = None
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            self._write_files(scratch)
            scratch.chmod(0o755)  # mkdtemp makes it private
            if folder.exists():
                folder.rmdir()
            scratch.rename(folder)
        except OSError as error:
            raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
        finally:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def _write_files(self, folder: Path) -> None:
        write_records(folder / "corpus.jsonl", self.corpus.values())
        write_records(folder / "queries.jsonl", self.queries.values())
        (folder / "qrels").mkdir()
        for split, judgements in self.qrels.items():
            write_judgements(folder / "qrels" / f"{split}.tsv", judgements)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content: the same whatever the order of lines and keys, and whatever the name.

        Example:
            >>> len(Dataset("toy", {}, {}, {}).fingerprint)
            64
        """
        digest = hashlib.sha256()
        for records in (self.corpus, self.queries):
            for key in sorted(records):
                record = record_of(records[key])
                digest.update(json.dumps(record, sort_keys=True).encode() + b"\n")
            digest.update(b"\n")  # no JSON line is empty, so the parts cannot run into each other
        digest.update(json.dumps(self.qrels, sort_keys=True).encode())
        return digest.hexdigest()

    @property
    def splits(self) -> list[str]:
        """The names of the splits that hold judgements: train, dev and test first.

        Example:
            >>> Dataset.example().splits
            ['train', 'dev', 'test']
        """
        return sorted(self.qrels, key=lambda s: (_STANDARD_SPLITS.index(s) if s in _STANDARD_SPLITS else 3, s))

    def judgements(self, split: str) -> Mapping[str, Mapping[str, int]]:
        """Return a split's judgements: query id -> document id -> grade.

        Raises:
            DataError: There is no such split; the message lists those that there are.

        Example:
            >>> Dataset("toy", {}, {}, {}).judgements("test")
            Traceback (most recent call last):
            ...
            rabtriever.errors.DataError: dataset 'toy' has no split 'test'; it has no splits
        """
        if split in self._refused:
            raise self._refused[split]
        if split not in self.qrels:
            names = ", ".join(self.splits)
            hint = f"choose one of: {names}" if names else "it has no splits"
            raise DataError(f"dataset {show(self.name)} has no split {show(split)}", hint=hint)
        return self.qrels[split]

    def split(self, name: str) -> list[Query]:
        """Return the queries of a split that have a relevant document, in file order.

        Raises:
            DataError: There is no such split.

        Example:
            >>> len(Dataset.example().split("test")) > 0
            True
        """
        judgements = self.judgements(name)
        wanted = {query for query, grades in judgements.items() if any(grade > 0 for grade in grades.values())}
        return [query for id_, query in self.queries.items() if id_ in wanted]

    @property
    def unjudged(self) -> list[Query]:
        """The queries that stand in no split, in file order: a teacher can label them for its student.

        Raises:
            DataError: A split's file could not be read: its queries cannot be told from the others.

        Example:
            >>> Dataset("toy", {}, {"q": Query("q", "I spilled my coke")}, {}).unjudged[0].id
            'q'
        """
        judged = {query for split in [*self.splits, *self._refused] for query in self.judgements(split)}
        return [query for id_, query in self.queries.items() if id_ not in judged]

    def relevant(self, split: str, query_id: str) -> set[str]:
        """Return the ids of the documents that are relevant to a query (grade above 0); none if it is not judged.

        Raises:
            DataError: There is no such split.

        Example:
            >>> Dataset.example().relevant("test", "no such query")
            set()
        """
        grades = self.judgements(split).get(query_id, {})
        return {document for document, grade in grades.items() if grade > 0}


def sample(queries: Sequence[Query], limit: int | None, seed: int = 0) -> list[Query]:
    """Draw at most ``limit`` queries at random, in their given order; a smaller draw is part of a larger one.

    Args:
        queries: The queries to draw from.
        limit: How many to draw; ``None`` or a number beyond their count keeps all.
        seed: Of the draw.

    Raises:
        InputError: ``limit`` is below 1.

    Example:
        >>> queries = [Query(str(i), "text") for i in range(10)]
        >>> small, large = sample(queries, 3), sample(queries, 6)
        >>> len(large), {q.id for q in small} <= {q.id for q in large}
        (6, True)
    """
    if limit is None or limit >= len(queries):
        return list(queries)
    if limit < 1:
        raise InputError(f"the number of queries must be at least 1, found {limit}")
    positions = list(range(len(queries)))
    random.Random(seed).shuffle(positions)
    return [queries[position] for position in sorted(positions[:limit])]


def _file(folder: Path, name: str) -> Path:
    file = folder / name
    if not file.is_file():
        raise DataError(f"{folder} holds no file {name}", hint=_LAYOUT)
    return file


def _qrels_files(folder: Path, name: str) -> list[Path]:
    files = sorted((folder / name).glob("*.tsv"))
    if not files:
        raise DataError(f"{folder} holds no judgements ({name}/*.tsv)", hint=_LAYOUT)
    return files
