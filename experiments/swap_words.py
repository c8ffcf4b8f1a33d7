"""More queries without labels, for the teacher to judge: a dataset's own training queries with other things in them.

    python experiments/swap_words.py DATA/saycan -o models/saycan-more --queries 600
    rabtriever distill MODEL models/saycan-more -o STUDENT --set distill.unjudged_queries=600

Made for SayCan, whose skills name things and places: *find a coke*, *go to the table*. A query's are exchanged for
others of the corpus, each for the same one throughout, so that "Bring me a coke ... 1. find a coke" becomes "Bring me a
tea ... 1. find a tea". Only queries of ``train`` are changed, and nothing says what would be right: the teacher judges.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rabtriever import Dataset
from rabtriever.data import Query

THING = re.compile(r"^(?:find (?:an?|the)|pick up the|put down the) (.+)$")
PLACE = re.compile(r"^go to the (?!drawer)(.+)$")  # what is opened is no counter


def words(dataset: Dataset, pattern: re.Pattern[str]) -> list[str]:
    """What the corpus' documents name behind a verb, each once, longest first: "coke can" is no "coke"."""
    found = {match[1] for d in dataset.corpus.values() if (match := pattern.match(d.content))}
    return sorted(found, key=lambda word: (-len(word), word))


def swap(text: str, kinds: Sequence[Sequence[str]], rng: np.random.Generator) -> str:
    """The text with its words of each kind exchanged for others of that kind."""
    for kind in kinds:
        named = re.compile(rf"\b(an? )?({'|'.join(map(re.escape, kind))})\b", re.IGNORECASE)
        present = {match[2].lower() for match in named.finditer(text)}
        others = rng.permutation([word for word in kind if word not in present]).tolist()
        into = dict(zip(sorted(present), others, strict=False))

        def other(match: re.Match[str], into: dict[str, str] = into) -> str:
            word = into.get(match[2].lower(), match[2])
            article = {"": "", "a": "a ", "an": "a "}[(match[1] or "").strip().lower()]
            return ("an " if article and word[0] in "aeiou" else article) + word

        text = named.sub(other, text)
    return text


def more(dataset: Dataset, count: int, seed: int) -> list[Query]:
    """So many new queries, no two of the same text, and none that the dataset has already."""
    kinds = [words(dataset, pattern) for pattern in (THING, PLACE)]
    rng = np.random.default_rng(seed)
    train, known = dataset.split("train"), {query.text for query in dataset.queries.values()}
    out: list[Query] = []
    for _ in range(100 * count):
        if len(out) == count:
            return out
        text = swap(train[int(rng.integers(len(train)))].text, kinds, rng)
        if text not in known:
            known.add(text)
            out.append(Query(f"swapped-{len(out)}", text))
    raise SystemExit(f"only {len(out)} of {count} new queries found; ask for fewer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset = Dataset.load(options.dataset)
    new = more(dataset, options.queries, options.seed)
    replace(dataset, queries={**dataset.queries, **{query.id: query for query in new}}).save(options.output)


if __name__ == "__main__":
    main()
