"""Several datasets in BEIR layout as one: ids carry the name of the folder they come from, nothing is dropped.

    python experiments/merge.py DATA/e-care DATA/entailmentbank -o merged

A query's right documents are those of its own dataset; the others' documents join the corpus as further wrong ones. The
splits stay what they are. Two documents of one text, of different datasets, stay two.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def judgements(path: Path) -> Iterator[list[str]]:
    """Rows of a qrels file without its header: query, document, grade."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            if number or not line.startswith("query-id"):
                yield line.rstrip("\n").split("\t")


def merge(sources: list[Path], target: Path) -> None:
    """Write the merged dataset; the target is complete when its ``corpus.jsonl`` is there."""
    (target / "qrels").mkdir(parents=True, exist_ok=True)
    _write_texts(sources, target / "queries.jsonl")
    for split in sorted({path.name for source in sources for path in (source / "qrels").glob("*.tsv")}):
        with (target / "qrels" / split).open("w", encoding="utf-8") as out:
            out.write("query-id\tcorpus-id\tscore\n")
            for source in sources:
                path = source / "qrels" / split
                for query, document, grade in judgements(path) if path.exists() else ():
                    out.write(f"{source.name}:{query}\t{source.name}:{document}\t{grade}\n")
    _write_texts(sources, target / "corpus.jsonl")


def _write_texts(sources: list[Path], target: Path) -> None:
    part = target.with_suffix(".part")
    with part.open("w", encoding="utf-8") as out:
        for source in sources:
            for record in lines(source / target.name):
                kept = {
                    "_id": f"{source.name}:{record['_id']}",
                    "title": record.get("title", ""),
                    "text": record["text"],
                }
                out.write(json.dumps(kept, ensure_ascii=False) + "\n")
    part.replace(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="folders in BEIR layout")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    merge(options.sources, options.output)


if __name__ == "__main__":
    main()
