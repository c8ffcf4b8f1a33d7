"""What is counted, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server, in a registry of their own.

    Example:
        >>> metrics = Metrics()
        >>> metrics.restarts.inc()
        >>> b"rabtriever_worker_restarts_total 1.0" in metrics.text()
        True
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "rabtriever_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "rabtriever_request_seconds", "Seconds to the end of the answer.", ["route"], registry=registry
        )
        self.queued = Gauge("rabtriever_queued_texts", "Texts that wait for the model.", registry=registry)
        self.pending = Gauge(
            "rabtriever_pending_requests", "Requests under way or waiting.", ["pool"], registry=registry
        )
        self.batch_texts = Histogram(
            "rabtriever_batch_texts", "Texts computed together.", ["kind"], buckets=_TEXTS, registry=registry
        )
        self.batch_seconds = Histogram("rabtriever_batch_seconds", "Seconds a batch took.", ["kind"], registry=registry)
        self.out_of_memory = Counter(
            "rabtriever_out_of_memory", "Batches that did not fit the memory.", registry=registry
        )
        self.restarts = Counter("rabtriever_worker_restarts", "Worker threads that died.", registry=registry)
        self.documents = Gauge("rabtriever_documents", "Documents in the index.", registry=registry)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)
