"""A real Ray cluster on this machine encodes: the same vectors, whatever becomes of its workers and nodes.

test_cluster.py runs each of these in a process of its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import ray

from rabtriever import Index, InputError, Retriever
from rabtriever.cli import main
from rabtriever.cluster import ClusterStudent
from rabtriever.progress import SilentProgress
from tiny_student import save_tiny_student

DOCUMENTS = [{"_id": f"d{n}", "text": f"document {n} " + "and so on " * (n % 40)} for n in range(600)]


@pytest.fixture(scope="module")
def student(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    folder = save_tiny_student(tiny_folder("llama"), tmp_path_factory.mktemp("cluster") / "model")
    return Retriever.from_pretrained(folder, dtype="float32")


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A cluster of two nodes with a processor each, beside a head that has none."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.kept = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def _workers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or [""]
        if line[0].startswith("ray::_encode"):  # as Ray names a worker while it does this
            found.append(process)
    return found


def test_the_same_vectors_and_one_index(student: Retriever, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, DOCUMENTS)))
    command = ["index", str(student.path), str(corpus), "-o", str(tmp_path / "index"), "--ray", "local", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["added"] == len(DOCUMENTS)
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"] == len(DOCUMENTS)
    with Index.open(tmp_path / "index", student) as index:
        assert index.check().problems == ()
        found = {id: vector for batch in index.vectors() for id, vector in zip(batch.ids, batch.vectors, strict=True)}
    expected = student.encode_document([document["text"] for document in DOCUMENTS])
    stored = np.stack([found[document["_id"]] for document in DOCUMENTS])
    error = np.linalg.norm(stored - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() < 0.05  # workers compute in bfloat16 where the processor has it


class _Killer(SilentProgress):
    """While documents are indexed: kills workers one after the other, then a node."""

    def __init__(self, nodes: Any, workers: int) -> None:
        self.nodes, self.workers, self.killed = nodes, workers, 0
        self.node_killed = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set() and self.killed < self.workers:
            for worker in _workers()[:1]:
                worker.kill()
                self.killed += 1
                time.sleep(1.0)
            time.sleep(0.005)
        if not self._ended.is_set():
            self.nodes.remove_node(self.nodes.kept[1], allow_graceful=False)
            self.node_killed = True


def test_killed_workers_and_a_lost_node_lose_nothing(student: Retriever, nodes: Any, tmp_path: Path) -> None:
    documents = [{**document, "_id": f"{n}-{document['_id']}"} for n in range(8) for document in DOCUMENTS]
    with ClusterStudent(student, nodes.address, dtype="float32") as cluster:
        assert cluster.workers == 2
        with Index.create(tmp_path / "index", cluster) as index, _Killer(nodes, workers=3) as killer:
            while not killer.node_killed:
                index.add(documents, batch_size=cluster.batch_size)
                if not killer.node_killed:  # it was too quick for the killer: once more
                    index.delete([document["_id"] for document in documents])
            assert index.add(documents, batch_size=64).unchanged == len(documents)
            assert killer.killed == 3
            assert index.count == len(documents)
            assert index.check().problems == ()
            vectors = student.encode_document([document["text"] for document in documents])
            expected = {document["_id"]: vector for document, vector in zip(documents, vectors, strict=True)}
            for batch in index.vectors():
                np.testing.assert_allclose(batch.vectors, np.stack([expected[id] for id in batch.ids]), atol=1e-4)


def test_another_model_on_a_worker_is_refused(tiny_folder: Callable[..., Path], tmp_path: Path) -> None:
    model = save_tiny_student(tiny_folder("llama"), tmp_path / "model")
    mine = Retriever.from_pretrained(model, dtype="float32")
    save_tiny_student(tiny_folder("qwen2"), tmp_path / "other")
    mine.path = str(tmp_path / "other")
    with ClusterStudent(mine, "local", dtype="float32", cpus=1) as cluster:
        assert np.array_equal(cluster.encode_query(["x"]), mine.encode_query(["x"]))
        with pytest.raises(InputError, match="a worker of the cluster"):
            cluster.encode_document(["x"])


def test_what_cannot_be_reached_or_had(student: Retriever) -> None:
    with pytest.raises(InputError, match="no machine of the cluster has 1000 processors"):
        ClusterStudent(student, "local", cpus=1000)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nowhere:port"):
        with pytest.raises(InputError, match="does not answer"):
            ClusterStudent(student, address)
