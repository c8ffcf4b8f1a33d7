"""Hard wrong documents for another teacher: what a student ranks high and no label calls right, judged wrong.

    python experiments/mine.py MODEL DATA/alfred -o models/alfred-mined --queries 1500 --best 20
    rabtriever train models/alfred-mined -o MODEL --set teacher.candidates=judged:6 --set teacher.max_queries=1500

Lines with score 0 are added to ``qrels/train.tsv`` for so many training queries: those that the training draws with the
same number and seed. Where labels are incomplete, some of these documents are right all the same.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rabtriever import Dataset, Retriever
from rabtriever.evaluation import StudentSystem
from rabtriever.evaluation.ranking import ranked
from rabtriever.progress import on_stderr
from rabtriever.training.candidates import WrongDocuments, training_queries

CHUNK = 256


def mine(student: Retriever, dataset: Dataset, queries: int | None, best: int, seed: int) -> Dataset:
    """The dataset with the ``best`` wrong documents of each drawn training query judged wrong."""
    system = StudentSystem(student)
    others = WrongDocuments(dataset)
    drawn = training_queries(dataset, "train", queries, seed)
    judged = {query: dict(grades) for query, grades in dataset.judgements("train").items()}
    with on_stderr().task("mining", total=len(drawn), unit="queries") as task:
        for start in range(0, len(drawn), CHUNK):
            part = drawn[start : start + CHUNK]
            scores = system.rank(part, dataset.corpus, len(dataset.corpus))
            for query in part:
                wrong = set(others.of("train", query))
                best_first = [i for i in ranked(scores[query.id], query.id) if i in wrong]
                judged[query.id] |= dict.fromkeys(best_first[:best], 0)
            task.advance(len(part))
    return replace(dataset, qrels={**{split: dataset.judgements(split) for split in dataset.splits}, "train": judged})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=None, help="of the training queries, so many")
    parser.add_argument("--best", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    student = Retriever.from_pretrained(options.model)
    mined = mine(student, Dataset.load(options.dataset), options.queries, options.best, options.seed)
    mined.save(options.output)


if __name__ == "__main__":
    main()
