"""Several datasets in BEIR layout as one: ids carry the name of the folder they come from; metadata is left out.

    python experiments/merge.py DATA/e-care DATA/entailmentbank -o merged [--train 1200]

A query's right documents are those of its own dataset; the others' documents join the corpus as further wrong ones. The
splits stay what they are, but that ``--train`` draws so many training queries of each dataset, for one that is much
larger than the others would be nearly all of the whole. Two documents of one text, of different datasets, stay two.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rabtriever import Dataset
from rabtriever.data import sample


def merge(sources: Sequence[Dataset], name: str, train: int | None = None) -> Dataset:
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
            drawn = {query.id for query in sample(source.split(split), train if split == "train" else None)}
            for query, grades in source.judgements(split).items():
                if query not in drawn:
                    continue
                found = {renamed(source, document): grade for document, grade in grades.items()}
                qrels.setdefault(split, {})[renamed(source, query)] = found
    return Dataset(name, {d.id: d for d in documents}, {q.id: q for q in queries}, qrels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="folders in BEIR layout")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--train", type=int, help="training queries of each dataset at most")
    options = parser.parse_args()
    sources = [Dataset.load(source) for source in options.sources]
    merge(sources, options.output.name, options.train).save(options.output)


if __name__ == "__main__":
    main()
