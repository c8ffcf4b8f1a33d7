"""Answers out of one's own Markdown.

    python examples/markdown_rag.py MODEL FOLDER "How do I clean the filter?"

Prints a prompt for any language model, with the passages that answer the question and where they come from. The index
stays in FOLDER/.rabtriever; asking again encodes only the files that changed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rabtriever import Document, Index, Retriever
from rabtriever.index import Passages

CUT = Passages(characters=800, overlap=80)


def update(index: Index, folder: Path) -> None:
    """Make the index hold what the folder holds."""
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*.md"))}
    texts = {name: file.read_text(encoding="utf-8", errors="replace") for name, file in files.items()}
    index.add(Document(name, text) for name, text in texts.items() if text.strip())
    index.delete([document.id for document in index.documents() if not texts.get(document.id, "").strip()])


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Make a prompt out of a folder of Markdown.")
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    given = parser.parse_args(arguments)
    student = Retriever.from_pretrained(given.model)
    with Index.create(given.folder / ".rabtriever", student, exist_ok=True, passages=CUT) as index:
        update(index, given.folder)
        hits = index.search(given.question, k=3, rerank=6)
    print("Answer the question from these sources alone, and name those you used.\n")
    for number, hit in enumerate(hits, start=1):
        start, end = hit.span or (0, len(hit.text))
        print(f"[{number}] {hit.id}\n{hit.text[start:end].strip()}\n")
    print(f"Question: {given.question}")


if __name__ == "__main__":
    main(sys.argv[1:])
