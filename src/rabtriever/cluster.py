"""A student whose documents are read by the machines of a Ray cluster.

An index takes it for the student itself: what is unchanged is still skipped, each batch is still one commit by the one
process that writes, and what was interrupted goes on. The machines only turn texts into vectors, which is where the
time goes; so one that is lost, in the middle of anything, loses nothing but the texts it held, and others read them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rabtriever.artifacts import check_same
from rabtriever.batches import token_batches
from rabtriever.errors import InputError, package_missing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.index.protocol import Encoder, Teacher
    from rabtriever.numerics import DType

__all__ = ["ClusterStudent"]

_CHARACTERS = 32_000
"""Of texts that travel together: seconds of a processor's work, beside which travelling costs little."""
_FRAME = 100
"""What a text costs beside its own characters: its prompt."""
_CONNECT_SECONDS = 10
_CPUS = 4
"""Of each worker, which holds a model of its own."""


class ClusterStudent:
    """A student that lets a Ray cluster encode documents; queries it encodes itself.

    Every machine must have this package, and the model at the same path (or by the same name or hub id).

    Args:
        student: The model, loaded here.
        address: ``local`` for the processors of this machine, ``auto``, or the address of a cluster's head.
        dtype: What the workers compute in.
        cpus: Processors of each worker; four when left out, or as many as the largest machine has.
        gpus: GPUs of each worker.

    Attributes:
        workers: How many can work at once, as the cluster is now.

    Raises:
        InputError: Ray is not installed, the cluster does not answer, no machine of it has so many processors, or the
            model was never saved.

    Example:
        >>> student = Retriever.from_pretrained("robot-skills")                           # doctest: +SKIP
        >>> with ClusterStudent(student, "local") as cluster:                            # doctest: +SKIP
        ...     Index.create("skills", cluster).add(documents, batch_size=cluster.batch_size)
    """

    def __init__(
        self, student: Encoder, address: str = "local", *, dtype: DType = "auto", cpus: int | None = None, gpus: int = 0
    ) -> None:
        if student.path is None:
            raise InputError("workers load the model by its path, and it has none", hint="save it first")
        self._student, self._model, self._dtype = student, student.path, dtype
        self._ray = _connected(address)
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        most = int(max((machine.get("CPU", 0) for machine in machines), default=0))
        self._cpus = cpus or max(1, min(_CPUS, most))
        self.workers = sum(int(machine.get("CPU", 0)) // self._cpus for machine in machines)
        if not self.workers:
            self.close()
            raise InputError(f"no machine of the cluster has {self._cpus} processors; the largest has {most}")
        task = self._ray.remote(_encode)
        # Tasks, not actors: whichever worker is free takes the next, wherever it is, and keeps its model for it.
        self._task = task.options(num_cpus=self._cpus, num_gpus=gpus, max_retries=-1)

    @property
    def dimension(self) -> int:
        """Width of the vectors."""
        return self._student.dimension

    @property
    def bias(self) -> float:
        """What is added to the inner product."""
        return self._student.bias

    @property
    def fingerprint(self) -> str:
        """The hash of everything that determines the vectors."""
        return self._student.fingerprint

    @property
    def document_fingerprint(self) -> str:
        """The hash of everything that determines the documents' vectors."""
        return self._student.document_fingerprint

    @property
    def path(self) -> str | None:
        """Where the model is."""
        return self._student.path

    @property
    def reranker(self) -> Teacher:
        """The teacher on the same language model."""
        return self._student.reranker

    @property
    def batch_size(self) -> int:
        """Documents to commit together, so that all workers have work meanwhile."""
        return 256 * self.workers

    def encode_query(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, ``(m, k)``, computed here."""
        return self._student.encode_query(texts)

    def encode_document(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, ``(n, k)``, computed by the cluster.

        Raises:
            MismatchError: A worker's model is another than this one.
        """
        out = np.empty((len(texts), self.dimension), np.float32)
        asked = {
            self._task.remote(self._model, self._dtype, self._cpus, [texts[row] for row in rows]): rows
            for rows in _parcels(texts)
        }
        try:
            while asked:
                ready, _ = self._ray.wait(list(asked))
                for done in ready:
                    fingerprint, vectors = self._ray.get(done)
                    check_same("model", fingerprint, self.fingerprint, "a worker of the cluster")
                    out[asked.pop(done)] = vectors
        finally:
            for left in asked:  # after an error, or Ctrl-C
                self._ray.cancel(left, force=True)
        return out

    def close(self) -> None:
        """Let go of the cluster; one that was started here ends."""
        self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connected(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports nothing to anybody, unless the user says so
    try:
        import ray
    except ModuleNotFoundError as error:
        raise package_missing("encoding on a cluster", error, "ray") from error
    try:
        if ":" in address:  # Ray itself would try for minutes
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        dashboard = False if address == "local" else None
        ray.init(address, include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # of which ConnectionError is one
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the Ray cluster {address!r} does not answer: {reason}", hint="see `ray status`, or give local"
        ) from error
    return ray


def _parcels(texts: Sequence[str]) -> Iterator[list[int]]:
    """Rows of texts that travel together: of nearly one length, the longest first, so that no worker ends late."""
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    for parcel in token_batches([_FRAME + len(texts[row]) for row in order], _CHARACTERS):
        yield [order[place] for place in parcel]


def _encode(model: str, dtype: DType, cpus: int, texts: list[str]) -> tuple[str, NDArray[np.float32]]:
    """What a worker does."""
    student = _load(model, dtype, cpus)
    return student.fingerprint, student.encode_document(texts)


@cache
def _load(model: str, dtype: DType, cpus: int) -> Encoder:
    """Once for each worker."""
    import torch

    from rabtriever.compiled import load_student

    torch.set_num_threads(cpus)
    return load_student(model, dtype=dtype)
