"""An index that follows a file.

    python examples/keep_in_step.py MODEL INDEX corpus.jsonl

Run it as often as you like: what is new or changed is encoded, what is gone from the file is deleted, the rest costs a
comparison. Others may search the index meanwhile. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rabtriever import Index, Retriever


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Bring an index in step with a file of documents.")
    parser.add_argument("model")
    parser.add_argument("index", type=Path)
    parser.add_argument("corpus", type=Path, help='lines such as {"id": "d1", "text": "bring a sponge"}')
    given = parser.parse_args(arguments)
    lines = given.corpus.read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in lines if line.strip()]
    with Index.create(given.index, Retriever.from_pretrained(given.model), exist_ok=True) as index:
        counts = index.add(documents)
        wanted = {document["id"] for document in documents}
        gone = index.delete([document.id for document in index.documents() if document.id not in wanted])
        if counts.updated or gone:
            index.compact()
        print(f"{counts.added} added, {counts.updated} updated, {counts.unchanged} unchanged, {gone} deleted")


if __name__ == "__main__":
    main(sys.argv[1:])
