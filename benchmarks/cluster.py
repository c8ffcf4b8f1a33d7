"""One node of a Ray cluster against two, in documents a second: the real model, a real cluster on this machine.

    python benchmarks/cluster.py general DATA/e-care --documents 4000

Each node has one processor, and a worker one thread, beside a head without any; the process that asks and writes takes
part of a processor too, so that on two cores two nodes cannot be twice as fast. Each cluster first reads a few hundred
documents, so that the workers have loaded their model. The index is a new one each time; what is stored is counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from rabtriever import Dataset, Index
from rabtriever.cluster import ClusterStudent
from rabtriever.compiled import load_student

_WARM_UP = 300


def measure(student: Any, nodes: int, documents: list[Any], folder: Path) -> dict[str, float]:
    """Index the documents with so many nodes."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        with ClusterStudent(student, cluster.address, cpus=1) as workers:
            workers.encode_document([document.content for document in documents[:_WARM_UP]])
            with Index.create(folder / f"nodes-{nodes}", workers) as index:
                began = time.perf_counter()
                index.add(documents, batch_size=4 * workers.batch_size)
                seconds = time.perf_counter() - began
                assert index.count == len({document.id for document in documents})
    finally:
        ray.shutdown()
        cluster.shutdown()
    return {"seconds": seconds, "documents_per_second": len(documents) / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    documents = list(Dataset.load(options.dataset).corpus.values())[: options.documents]
    student = load_student(options.model)
    for _ in range(options.rounds):
        for nodes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                found = measure(student, nodes, documents, Path(folder))
            print(json.dumps({"nodes": nodes, "documents": len(documents), **found}), flush=True)


if __name__ == "__main__":
    main()
