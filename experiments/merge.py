"""Several datasets in BEIR layout as one: ids carry the name of the folder they come from; metadata is left out.

    python experiments/merge.py DATA/e-care DATA/entailmentbank -o merged

A query's right documents are those of its own dataset; the others' documents join the corpus as further wrong ones. The
splits stay what they are. Two documents of one text, of different datasets, stay two.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rabtriever import Dataset


def merge(sources: Sequence[Dataset], name: str) -> Dataset:
    """All documents, queries and judgements of several datasets, each id after its dataset's name, no metadata."""

    def renamed(dataset: Dataset, id_: str) -> str:
        return f"{dataset.name}:{id_}"

    documents = [
        replace(d, id=renamed(source, d.id), metadata={}) for source in sources for d in source.corpus.values()
    ]
    queries = [replace(q, id=renamed(source, q.id), metadata={}) for source in sources for q in source.queries.values()]
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    for source in sources:
        for split in source.splits:
            for query, grades in source.judgements(split).items():
                found = {renamed(source, document): grade for document, grade in grades.items()}
                qrels.setdefault(split, {})[renamed(source, query)] = found
    return Dataset(name, {d.id: d for d in documents}, {q.id: q for q in queries}, qrels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="folders in BEIR layout")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    merge([Dataset.load(source) for source in options.sources], options.output.name).save(options.output)


if __name__ == "__main__":
    main()
