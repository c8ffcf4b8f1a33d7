"""An index in Chroma, from its Parquet file, and found there as in the index itself.

    rabtriever export my-index my-index.parquet --to parquet
    python examples/parquet_to_chroma.py MODEL my-index.parquet FOLDER "I spilled my coke"

Chroma searches along a graph (HNSW), and along inner products a graph loses its way: a few long vectors are the
neighbours of all others. One more number for each vector, ``sqrt(M - |v|^2)`` where ``M`` is the largest ``|v|^2``, and
a zero for the query turn the best by inner product into the nearest by distance, where graphs do work::

    |q - v|^2 = |q|^2 + M - 2 q.v

The same number serves any engine that knows distances or cosines only.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pyarrow.parquet as pq

from rabtriever import Retriever

BATCH, SPARE = 2000, 20


def fill(table: Any, folder: Path) -> Any:
    """A collection of all rows of the file, each vector with one more number."""
    column = table["vector"].combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(column), -1)
    squares = np.square(vectors).sum(1)
    longer = np.column_stack([vectors, np.sqrt(squares.max() - squares)])
    client = chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))
    graph = {"space": "l2", "ef_search": len(longer)}  # as thorough as a graph can be
    collection = client.create_collection("documents", configuration={"hnsw": graph}, embedding_function=None)
    for start in range(0, len(longer), BATCH):
        rows = table.slice(start, BATCH).to_pylist()
        collection.add(
            ids=[f"{row['passage']} {row['id']}" for row in rows],
            embeddings=longer[start : start + BATCH],
            documents=[row["text"] for row in rows],
            metadatas=[{"id": row["id"], "metadata": row["metadata"]} for row in rows],
        )
    return collection


def search(collection: Any, query: Any, bias: float, k: int) -> list[tuple[str, float, str]]:
    """Id, log-odds and text of the best passages: of a few more than wanted, since distances are rounded."""
    found = collection.query(
        query_embeddings=[[*query.tolist(), 0.0]],
        n_results=min(k + SPARE, collection.count()),
        include=["embeddings", "documents", "metadatas"],
    )
    ids = [metadata["id"] for metadata in found["metadatas"][0]]
    scores = np.asarray(found["embeddings"][0])[:, :-1] @ query + bias
    return sorted(zip(ids, scores.tolist(), found["documents"][0], strict=True), key=lambda hit: -hit[1])[:k]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Load an exported index into Chroma and search there.")
    parser.add_argument("model")
    parser.add_argument("parquet", type=Path, help="what rabtriever export ... --to parquet wrote")
    parser.add_argument("folder", type=Path, help="of Chroma; there is nothing yet")
    parser.add_argument("query")
    parser.add_argument("-k", type=int, default=10)
    given = parser.parse_args(arguments)
    table = pq.read_table(given.parquet)
    bias = json.loads(table.schema.metadata[b"rabtriever"])["bias"]
    collection = fill(table, given.folder)
    query = Retriever.from_pretrained(given.model).encode_query([given.query])[0]
    for id, score, text in search(collection, query, bias, given.k):
        print(f"{score:+.3f}  {id}  {text}")


if __name__ == "__main__":
    main(sys.argv[1:])
