"""What a server is told at its start, and the limits it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field

from rabtriever.serving.access import Keys

__all__ = ["Limits", "Settings"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all of them together, may ask for.

    Attributes:
        body_bytes: Bytes of a request.
        documents: Documents, texts or inputs of a request.
        characters: Characters of a single text.
        hits: Hits of a search, and documents that the teacher rereads.
        requests: Requests under way or waiting; more are answered with 429.
        writes: Writes under way or waiting, likewise.
        threads: Requests that may ask the index at once.
        batch_tokens: Estimated tokens that the worker computes together.
        queued_texts: Texts waiting for the worker; while there are so many, more are answered with 429.
        seconds: Seconds until a request is given up; until then its work is computed before younger requests'.
        write_seconds: The same for writes.
        stuck_seconds: Seconds in one batch from which the worker counts as stuck.
        per_minute: Requests a minute from one key, or from one address where no keys are asked for; 0: any number.
    """

    body_bytes: int = 8 << 20
    documents: int = 256
    characters: int = 100_000
    hits: int = 200
    requests: int = 128
    writes: int = 32
    threads: int = 64
    batch_tokens: int = 2048
    queued_texts: int = 4096
    seconds: float = 30.0
    write_seconds: float = 300.0
    stuck_seconds: float = 120.0
    per_minute: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server is run.

    Attributes:
        keys: Who may do what; None lets everybody do everything, which only a loopback address should.
        origins: Web pages of other hosts that may call the API from a browser (CORS); by default none.
        hosts: Names by which browsers may address the server, against DNS rebinding; None for any.
        limits: See :class:`Limits`.
    """

    keys: Keys | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    limits: Limits = field(default_factory=Limits)
