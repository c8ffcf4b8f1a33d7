"""More training queries: a dataset's own with other things in them, for the teacher to judge or with their labels.

    python experiments/swap_words.py DATA/saycan -o models/saycan-more --queries 600
    rabtriever distill MODEL models/saycan-more -o STUDENT --set distill.unjudged_queries=600
    python experiments/swap_words.py DATA/saycan -o models/saycan-swapped --queries 3000 --labelled

Made for SayCan, whose skills name things and places: *find a coke*, *go to the table*. A query's are exchanged for
others of the corpus, each for the same one throughout, so that "Bring me a coke ... 1. find a coke" becomes "Bring me a
tea ... 1. find a tea". Only queries of ``train`` are changed, none into a task of another split, and nothing says what
would be right: the teacher judges.
With ``--labelled`` the right skills are exchanged along, *pick up the coke* for *pick up the tea*, and where the corpus
has no such skill the query is left out; one that the query does not name stays as it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from folds import task

from rabtriever import Dataset
from rabtriever.data import Query

THING = re.compile(r"^(?:find (?:an?|the)|pick up the|put down the) (.+)$")
PLACE = re.compile(r"^go to the (?!drawer)(.+)$")  # what is opened is no counter


def words(dataset: Dataset, pattern: re.Pattern[str]) -> list[str]:
    """What the corpus' documents name behind a verb, each once, longest first: "coke can" is no "coke"."""
    found = {match[1] for d in dataset.corpus.values() if (match := pattern.match(d.content))}
    return sorted(found, key=lambda word: (-len(word), word))


def _named(kind: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(an? )?({'|'.join(map(re.escape, kind))})\b", re.IGNORECASE)


def exchange(
    text: str, right: Sequence[str], kinds: Sequence[Sequence[str]], rng: np.random.Generator
) -> dict[str, str]:
    """Another word of its kind for each of the text's, none that the text or its right documents have already."""
    into: dict[str, str] = {}
    for kind in kinds:
        present, also = ({match[2].lower() for match in _named(kind).finditer(t)} for t in (text, "\n".join(right)))
        others = rng.permutation([word for word in kind if word not in present | also]).tolist()
        into |= dict(zip(sorted(present), others, strict=False))
    return into


def swap(text: str, into: Mapping[str, str], kinds: Sequence[Sequence[str]]) -> str:
    """The text with these words exchanged, and their articles to match."""

    def other(match: re.Match[str]) -> str:
        word = into.get(match[2].lower(), match[2])
        article = {"": "", "a": "a ", "an": "a "}[(match[1] or "").strip().lower()]
        return ("an " if article and word[0] in "aeiou" else article) + word

    for kind in kinds:
        text = _named(kind).sub(other, text)
    return text


def bare(skill: str) -> str:
    """A skill without articles: the corpus has *find the tea*, and *find a tea* as well."""
    return re.sub(r"\b(?:an?|the) ", "", skill)


def more(dataset: Dataset, count: int, seed: int, labelled: bool) -> tuple[list[Query], dict[str, dict[str, int]]]:
    """So many new queries and their judgements, no two of the same text, and none that the dataset has already."""
    kinds = [kind for pattern in (THING, PLACE) if (kind := words(dataset, pattern))]
    rng = np.random.default_rng(seed)
    train, known = dataset.split("train"), {query.text for query in dataset.queries.values()}
    held = {task(query) for split in dataset.splits if split != "train" for query in dataset.split(split)}
    skills: dict[str, list[str]] = {}
    for id_, document in dataset.corpus.items():
        skills.setdefault(document.content, []).append(id_)
        skills.setdefault(bare(document.content), []).append(id_)
    out: list[Query] = []
    judged: dict[str, dict[str, int]] = {}
    for _ in range(100 * count):
        if len(out) == count:
            return out, judged
        old = train[int(rng.integers(len(train)))]
        right = [dataset.corpus[id_].content for id_ in sorted(dataset.relevant("train", old.id))] if labelled else []
        into = exchange(old.text, right, kinds, rng)
        text = swap(old.text, into, kinds)
        new_right = [swap(skill, into, kinds) for skill in right]
        ids = [skills.get(skill) or skills.get(bare(skill)) for skill in new_right]
        query = Query(f"swapped-{len(out)}", text)
        if text in known or task(query) in held or None in ids:
            continue
        known.add(text)
        out.append(query)
        if labelled:
            judged[out[-1].id] = {id_: 1 for found in ids if found for id_ in found}
    raise SystemExit(f"only {len(out)} of {count} new queries found; ask for fewer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument("--labelled", action="store_true", help="exchange the right skills' words along")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset = Dataset.load(options.dataset)
    new, judged = more(dataset, options.queries, options.seed, options.labelled)
    replace(
        dataset,
        queries={**dataset.queries, **{query.id: query for query in new}},
        qrels={**dataset.qrels, "train": {**dataset.qrels["train"], **judged}},
    ).save(options.output)


if __name__ == "__main__":
    main()
