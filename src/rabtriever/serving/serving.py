"""What all routes share: the service, the two pools of threads, and the limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse

from rabtriever.serving.admission import Admission
from rabtriever.serving.failures import ServingError
from rabtriever.serving.service import Service
from rabtriever.serving.settings import Limits

__all__ = ["Json", "Serving"]

T = TypeVar("T")


class Json(JSONResponse):
    """Strict JSON in ASCII: whatever stands in stored metadata can be sent, lone surrogates included."""

    def render(self, content: Any) -> bytes:
        """Write it."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True, slots=True)
class Serving:
    """The service with its pools.

    Attributes:
        service: Does the work.
        readers: Threads for what only reads.
        writer: The one thread that writes.
        limits: See :class:`rabtriever.serving.settings.Limits`.
    """

    service: Service
    readers: Admission
    writer: Admission
    limits: Limits

    @classmethod
    def of(cls, service: Service, limits: Limits) -> Serving:
        """Make the pools."""
        readers = Admission("read", limits.threads, limits.requests, limits.seconds, service.metrics)
        writer = Admission("write", 1, limits.writes, limits.write_seconds, service.metrics)
        return cls(service, readers, writer, limits)

    def close(self) -> None:
        """Finish what was accepted, then let go of the index."""
        self.writer.close()
        self.readers.close()
        self.service.close()

    async def read(self, request: Request, work: Callable[[], T]) -> T:
        """Do what only reads."""
        return await self.readers.run(request, work)

    async def write(self, request: Request, work: Callable[[], T]) -> T:
        """Do what writes, after what wanted to write before it."""
        return await self.writer.run(request, work)

    def check_count(self, what: str, count: int, most: int | None = None) -> None:
        """Refuse more than one request may ask for.

        Raises:
            ServingError: It is more.
        """
        limit = self.limits.documents if most is None else most
        if count > limit:
            raise ServingError(413, "too_many", f"{what}: {count}, more than {limit}", "split it over several requests")

    def check_texts(self, texts: Iterable[str]) -> None:
        """Refuse texts that are too long.

        Raises:
            ServingError: One is.
        """
        longest = max(map(len, texts), default=0)
        if longest > self.limits.characters:
            raise ServingError(
                413,
                "text_too_long",
                f"a text has {longest} characters, more than {self.limits.characters}",
                "cut it into passages",
            )

    def check_model(self, asked: str | None, served: str) -> None:
        """Refuse the name of another model than is served.

        Raises:
            ServingError: It is another.
        """
        if asked is not None and asked != served:
            raise ServingError(
                404, "unknown_model", "this model is not served here", f"leave it out, or ask for {served}"
            )
