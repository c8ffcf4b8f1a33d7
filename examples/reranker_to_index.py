"""A reranker becomes an index.

    python examples/reranker_to_index.py RERANKER DATASET OUT

RERANKER is any causal language model that answers the prompt, trained by this package or not: a folder or a hub id. Its
weights stay as they are; only the predictor is learned, from what the reranker says of the dataset's pairs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rabtriever import Dataset, Index, Reranker, distill


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Distil a reranker and index a dataset's documents.")
    parser.add_argument("reranker")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args(arguments)
    data = Dataset.load(given.dataset)
    student = distill(Reranker.from_pretrained(given.reranker), data)
    student.save_pretrained(given.out / "model")
    with Index.create(given.out / "index", student) as index:
        print(f"{index.add(data.corpus.values()).added} documents in {given.out / 'index'}")
        query = next(iter(data.queries.values())).text
        for hit in index.search(query, k=3):
            print(f"{hit.probability:.0%}  {query}  ->  {hit.text}")


if __name__ == "__main__":
    main(sys.argv[1:])
